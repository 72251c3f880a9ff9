"""From a published data set to a manifest: one reader per kind, the checks, and what to say of them (docs/iqa.md)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Literal, get_args

from sr_iqa.errors import UsageError, UserError

from .diffiqa import read_diffiqa, read_triplets
from .found import Found, with_images
from .hggt import Votes, read_hggt
from .manifest import Manifest, file_kind, write_manifest
from .mos_lists import KONIQ_BLOCK, read_kadid, read_koniq, read_pipal, read_tid2013
from .mos_pairs import PairRule
from .sriqa import read_sriqa
from .table import TableRule, read_table

OnBad = Literal["stop", "skip"]
SHOWN = 20
"""Problems that a message names."""
MOS_PAIRS = 500
"""Pairs of a scene that are made of opinion scores, unless told otherwise: KADID-10k has 7,750."""


@dataclass(frozen=True)
class ImportOptions:
    """What a reader may be told; each kind looks at its own."""

    votes: Votes = "majority"
    derived: bool = False
    lists: tuple[Path, ...] = ()
    per_content: int | None = None
    least_gap: float | None = None
    seed: int = 0
    references: bool = False
    mos_column: str = "MOS"
    block: int = KONIQ_BLOCK
    table: TableRule = field(default_factory=TableRule)


@dataclass(frozen=True)
class Imported:
    """A manifest that was made, and what to tell of it."""

    manifest: Manifest
    lines: tuple[str, ...]


def _rule(options: ImportOptions, most: int | None, least_gap: float = 0.0) -> PairRule:
    gap = least_gap if options.least_gap is None else options.least_gap
    most = most if options.per_content is None else options.per_content or None  # 0 asks for all
    return PairRule(most, gap, options.seed, options.references)


KINDS: Mapping[str, Callable[[Path, ImportOptions], Found]] = {
    "hggt": lambda root, o: read_hggt(root, o.votes),
    "diffiqa": lambda root, o: read_triplets(root, list(o.lists)) if o.lists else read_diffiqa(root, o.votes, o.derived),
    "sriqa": lambda root, o: read_sriqa(root, _rule(o, None)),
    "csv": lambda root, o: read_table(root, o.table),
    "kadid": lambda root, o: read_kadid(root, _rule(o, MOS_PAIRS)),
    "pipal": lambda root, o: read_pipal(root, _rule(o, MOS_PAIRS)),
    "tid2013": lambda root, o: read_tid2013(root, _rule(o, MOS_PAIRS)),
    "koniq": lambda root, o: read_koniq(root, _rule(o, 5 * o.block, 0.5), o.mos_column, o.block),
}

USES: Mapping[str, tuple[str, ...]] = {
    "hggt": ("votes",),
    "diffiqa": ("votes", "derived", "lists"),
    "sriqa": ("per_content", "least_gap", "seed"),
    "csv": ("table",),
    **dict.fromkeys(("kadid", "pipal", "tid2013"), ("per_content", "least_gap", "seed", "references")),
    "koniq": ("per_content", "least_gap", "seed", "mos_column", "block"),
}
"""The options that a kind looks at."""


def import_preferences(
    kind: str, root: Path, output: Path, options: ImportOptions | None = None, on_bad: OnBad = "stop", say: Callable[[str], None] = print
) -> Imported:
    """Read a data set of `kind` at `root` and write its manifest to `output`.

    Args:
        kind: one of KINDS.
        on_bad: stop at files, lines and images that cannot be used, or leave their pairs out. Either way `say` names them.

    Raises:
        UsageError: unknown kind; wrong options, or such that the kind does not look at; the output is the table that is read.
        UserError: missing folders; problems, unless they are skipped; no pairs.
    """
    options = options or ImportOptions()
    _check(kind, options, on_bad)
    file_kind(output)
    root = Path(root)
    if root.exists() and output.exists() and root.samefile(output):
        raise UsageError(f"-o {output} is the table that is read; write the manifest elsewhere")
    found = with_images(KINDS[kind](root, options))
    for problem in found.problems[:SHOWN]:
        say(str(problem))
    if len(found.problems) > SHOWN:
        say(f"... and {len(found.problems) - SHOWN} more problems")
    if found.problems and on_bad == "stop":
        raise UserError(f"{len(found.problems)} problem(s) in {root}; mend them, or leave their pairs out with --on-bad skip")
    if not found.pairs:
        raise UserError("; ".join((f"{root}: no pairs were found in it", *_left_out(found))))
    folder = root if root.is_dir() else options.table.images or root.parent
    manifest = Manifest(tuple(found.pairs), folder, _mos(found))
    write_manifest(output, manifest)
    return Imported(manifest, tuple(_summary(found, manifest)))


def _check(kind: str, options: ImportOptions, on_bad: str) -> None:
    if kind not in KINDS:
        raise UsageError(f"there is no kind {kind!r}; choose one of {', '.join(KINDS)}")
    plain = ImportOptions()
    given = [entry.name for entry in fields(options) if getattr(options, entry.name) != getattr(plain, entry.name)]
    for name in given:
        if name not in USES[kind]:
            told = {"lists": "--list", "table": "--columns, --words, --separator, --images"}.get(name, f"--{name.replace('_', '-')}")
            kinds = ", ".join(other for other in KINDS if name in USES[other])
            raise UsageError(f"{told}: {kind} has no use for it; it is for {kinds}")
    if on_bad not in get_args(OnBad):
        raise UsageError(f"--on-bad is stop or skip, not {on_bad!r}")
    if options.votes not in get_args(Votes):
        raise UsageError(f"--votes is majority or mean, not {options.votes!r}")
    if options.block < 2:
        raise UsageError(f"--block must be at least 2, not {options.block}")


def _mos(found: Found) -> dict[Path, float] | None:
    images = {image for pair in found.pairs for image in (pair.img_a, pair.img_b)}
    return {image: value for image, value in found.mos.items() if image in images} or None


def _summary(found: Found, manifest: Manifest) -> list[str]:
    """Counts: pairs, images, scenes, groups, what people said, pairs that are there again, what was left out."""
    scenes = len({pair.scene for pair in manifest.pairs})
    lines = [f"{len(manifest.pairs)} pairs of {len(manifest.images)} images, {scenes} contents"]
    groups = Counter(pair.group for pair in manifest.pairs)
    if set(groups) != {""}:
        lines.append("groups: " + ", ".join(f"{name or '(none)'} {count}" for name, count in sorted(groups.items())))
    sides = Counter("A better" if pair.p_a > 0.5 else "B better" if pair.p_a < 0.5 else "alike" for pair in manifest.pairs)
    lines.append("people: " + ", ".join(f"{side} {sides[side]}" for side in ("A better", "alike", "B better")))
    again = len(manifest.pairs) - len({(pair.group, frozenset((pair.img_a, pair.img_b))) for pair in manifest.pairs})
    lines += [f"repeated: {again} pairs are of two images that another pair compares too; each counts"] if again else []
    lines += _left_out(found)
    if found.problems:
        lines.append(f"problems: {len(found.problems)}, their pairs are left out")
    return lines


def _left_out(found: Found) -> list[str]:
    return [f"left out: {count} ({why})" for why, count in found.dropped.items() if count]
