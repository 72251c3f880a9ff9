"""The layout's rule: a file imports only from rooms below its own, or from its own folder (CONTRIBUTING.md)."""

import ast
from pathlib import Path

import sr_iqa

PACKAGE = Path(sr_iqa.__file__).parent
ROOMS = (
    *("__main__", "cli", "reference", "doctor", "lab", "study", "check", "export"),
    *("training", "evaluation", "scorecard", "inference", "losses", "adapters", "interpolation"),
    *(
        "checkpoints",
        "preferences",
        "iqa",
        "data",
        "sampling",
        "archs",
        "distributed",
        "images",
        "bind",
        "config",
        "names",
        "modes",
        "threads",
        "atomic",
        "errors",
    ),
)
"""From the roof to the ground."""


def imports(path):
    """(line, room) of every import from this package, functions' own included."""
    folder = path.relative_to(PACKAGE.parent).with_suffix("").parts[:-1]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = ".".join((*folder[: len(folder) + 1 - node.level], node.module or "")) if node.level else node.module
            names = [f"{base.rstrip('.')}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            parts = name.split(".")
            if parts[0] == "sr_iqa" and len(parts) > 1 and parts[1] in ROOMS:
                yield node.lineno, parts[1]


def test_every_file_belongs_to_a_room():
    rooms = {path.relative_to(PACKAGE).parts[0].removesuffix(".py") for path in PACKAGE.rglob("*.py")}
    assert rooms - {"__init__"} == set(ROOMS)


def test_nothing_imports_up_the_house():
    wrong = []
    for path in sorted(PACKAGE.rglob("*.py")):
        room = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        if room != "__init__":
            wrong += [f"{path}:{line} imports {other}" for line, other in imports(path) if ROOMS.index(other) < ROOMS.index(room)]
    assert not wrong, "\n".join(wrong)
