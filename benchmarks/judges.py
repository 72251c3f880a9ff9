"""Metrics against orderings that are known: `python -m benchmarks.judges --photos DIR [--count N] [--metrics LIST] [--scores TABLE]`.

Synthetic pairs, no people in them (sr_iqa/lab/synthetic.py): KADID-10k's 25 kinds of distortion and six of super-resolution networks, at
levels 0 (the photo) to 5, of which the fainter is better. Tables: by kind; by what nano's training has seen; how errors go together.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

from sr_iqa.data.distortions import DISTORTIONS, SUPER_RESOLUTION
from sr_iqa.iqa.nano_distorted import HELD_OUT_KINDS, KINDS, LEVELS
from sr_iqa.lab.agreement import WHOLE, Agreement
from sr_iqa.lab.judges import Request, Verdict, judge
from sr_iqa.lab.page import write_page
from sr_iqa.lab.results import text, together_text, write_json
from sr_iqa.lab.synthetic import Synthetic, make_synthetic
from sr_iqa.preferences.manifest import Manifest, Pair, read_manifest, write_manifest

NO_REFERENCE = "nano,niqe,piqe"
FULL_REFERENCE = "psnr,ssimc,gmsd"
"""Quick metrics that need no weights, or come with theirs. Orderings of one kind of damage are easy for those that see the reference."""

OVERDONE = ("sharpen", "over_sharpening", "ringing")
"""What looks sharp, and must not pass for better than the photo."""


def level(path: Path) -> int:
    """0 of the photo itself, else that of <kind>_<level>.png."""
    return 0 if path.stem == "original" else int(path.stem.rpartition("_")[2])


def parts(pair: Pair) -> Iterator[str]:
    """The groups of the second manifest that a pair is in."""
    yield WHOLE
    levels = {level(pair.img_a), level(pair.img_b)}
    if pair.group in HELD_OUT_KINDS:
        yield "kinds not trained on"
    elif pair.group in KINDS:
        yield "trained kinds, level 3 (not trained on)" if levels - {0, *LEVELS} else "trained kinds and levels"
    if pair.group in SUPER_RESOLUTION:
        yield "kinds of super-resolution"
    if 0 in levels:
        yield "photo against any"
        if pair.group in OVERDONE:
            yield f"photo against {pair.group}"


def by_parts(manifest: Manifest, path: Path) -> Path:
    """Writes the same pairs, grouped by `parts`."""
    pairs = [replace(pair, group=part) for pair in manifest.pairs for part in parts(pair)]
    write_manifest(path, Manifest(tuple(pairs), manifest.root))
    return path


def by_kind(verdict: Verdict) -> str:
    """A Markdown table: accuracy in % by kind, and the mean over kinds."""
    names = [entry.scored.name for entry in verdict.agreements]
    rows = [f"| kind | {' | '.join(f'`{name}`' for name in names)} |", "|---" * (1 + len(names)) + "|"]
    shares = {kind: [accuracy(entry, kind) for entry in verdict.agreements] for kind in DISTORTIONS}
    rows += [f"| {kind} | {' | '.join(f'{100 * value:.1f}' for value in values)} |" for kind, values in shares.items()]
    means = np.mean(list(shares.values()), 0)
    return "\n".join([*rows, f"| **mean** | {' | '.join(f'**{100 * value:.1f}**' for value in means)} |"])


def accuracy(entry: Agreement, kind: str) -> float:
    """Share of the kind's pairs that the metric orders right."""
    share = entry.groups[kind].share
    return share.value if share else float("nan")


def main() -> None:
    parser = argparse.ArgumentParser(description="Metrics against orderings that are known.")
    parser.add_argument("--photos", type=Path, required=True, help="a folder of photos; nano was trained on BSDS500's train/")
    parser.add_argument("--out", type=Path, default=Path("experiments/judges"))
    parser.add_argument("--count", type=int, default=24)
    parser.add_argument("--metrics", default=f"{NO_REFERENCE},{FULL_REFERENCE}")
    parser.add_argument("--scores", type=Path, help="a table of a foreign metric's scores of the images, lower better")
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    manifest = make_synthetic(Synthetic(arguments.photos, arguments.out, count=arguments.count))
    foreign = {"scores": (arguments.scores,), "lower_better": foreign_names(arguments.scores)} if arguments.scores else {}
    kinds = judge(Request(manifest, arguments.metrics, **foreign), say=print)
    groups = judge(Request(by_parts(read_manifest(manifest), arguments.out / "parts.csv"), arguments.metrics, **foreign), say=print)
    write_page(kinds, arguments.out / "judges.html")
    write_json(kinds, arguments.out / "judges.json")
    print(f"\n{by_kind(kinds)}\n\n{text(groups)}\n\n{together_text(kinds)}")


def foreign_names(table: Path) -> tuple[str, ...]:
    return tuple(name.strip() for name in table.read_text().splitlines()[0].split(",")[1:])


if __name__ == "__main__":
    main()
