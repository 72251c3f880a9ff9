"""Speed, as ratios against peers and limits that do the same work in the same run: `python -m benchmarks.NAME`.

Each script prints a table and writes benchmarks/results/NAME.json; `python -m benchmarks` turns these into docs/benchmarks.md's tables.
Peers are the packages from PyPI, or, where a peer's code is in no package, a restatement of what it does (hggt.py).
"""
