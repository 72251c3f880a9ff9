"""A verdict as plain values (JSON), as a table for other programs (CSV), and as text for the terminal."""

from __future__ import annotations

import csv
import json
import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sr_iqa.atomic import atomic_write

from .agreement import Agreement, Share, overall_pairs
from .complementarity import Complementarity
from .judges import Verdict

COLUMNS = (
    *("metric", "identity", "mode", "lower_better", "asymmetric", "group", "pairs", "contents", "accuracy", "low", "high"),
    *("votes", "votes_limit", "three_way", "threshold", "srcc", "srcc_low", "srcc_high", "krcc", "plcc", "plcc_plain", "images"),
)
MISSING = "–"


def as_dict(verdict: Verdict) -> dict[str, Any]:
    """Everything, in JSON's types; figures that do not exist are null."""
    pairs = verdict.manifest.pairs
    values = {
        "pairs": len(pairs),
        "images": len(verdict.manifest.images),
        "contents": len({pair.scene for pair in pairs}),
        "groups": Counter(pair.group for pair in pairs),
        "metrics": {entry.scored.name: _agreement(entry) for entry in verdict.agreements},
        "unusable": {entry.name: entry.reason for entry in verdict.unusable},
        "screening": _screening(verdict),
        "complementarity": _together(verdict.together) if verdict.together else None,
        "provenance": verdict.provenance,
    }
    return _plain(values)


def write_json(verdict: Verdict, path: Path) -> None:
    """Writes `as_dict`."""
    with atomic_write(path) as file:
        file.write_text(json.dumps(as_dict(verdict), indent=1, allow_nan=False) + "\n", encoding="utf-8")


def write_csv(verdict: Verdict, path: Path) -> None:
    """Writes a row for each metric and group; the group `(all)` is the whole, and has the figures that groups have not."""
    rows = []
    for entry in verdict.agreements:
        values = _agreement(entry)
        facts = {key: values[key] for key in ("identity", "mode", "lower_better", "asymmetric")}
        whole = {key: values[key] for key in ("votes", "votes_limit")}
        three = {"three_way": values["three_way"]["accuracy"], "threshold": values["three_way"]["threshold"]} if values["three_way"] else {}
        shares = {"(all)": values["overall"], **values["groups"]}
        for name, given in shares.items():
            rest = {**whole, **three, **(values["mos"] or {})} if name == "(all)" else {}
            rows.append({"metric": entry.scored.name, "group": name, **facts, **(given or {}), **rest})
    with atomic_write(path) as file, file.open("w", encoding="utf-8", newline="") as out:
        writer = csv.DictWriter(out, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def text(verdict: Verdict) -> str:
    """What the terminal shows of `iqa agree`."""
    parts = [headline(verdict)]
    if verdict.screening:
        rows = [(row.name, percent(row.train), percent(row.test)) for row in verdict.screening.rows]
        parts.append(_table(("metric", "screening", "the other scenes"), rows))
    parts.append(_table(*agreement_table(verdict)))
    parts += ["\n".join(_unusable(verdict))] if verdict.unusable else []
    return "\n\n".join(parts)


def _unusable(verdict: Verdict) -> list[str]:
    """A line for each reason, and the metrics that it holds for."""
    reasons: dict[str, list[str]] = {}
    for entry in verdict.unusable:
        reasons.setdefault(entry.reason.replace(entry.name, "it"), []).append(entry.name)
    return [f"not used ({reason}): {', '.join(names)}" for reason, names in reasons.items()]


def together_text(verdict: Verdict) -> str:
    """What the terminal shows of `iqa complement`."""
    together = verdict.together
    if together is None:
        return "one metric alone: nothing to compare"
    rescue = [(name, str(errors), *(_share(x) for x in row)) for name, errors, row in zip(*_rows(together), strict=True)]
    overlap = [(name, *(_number(x) for x in row)) for name, row in zip(together.names, together.jaccard, strict=True)]
    parts = [
        headline(verdict),
        f"Accuracy in % of the column's metric where the row's errs, of {together.pairs} pairs:",
        _table(("metric", "errors", *together.names), rescue),
        "Errors in common / errors of either (Jaccard):",
        _table(("metric", *together.names), overlap),
    ]
    if together.teams:
        rows = [(" + ".join(t.names), "" if len(t.names) == 1 else t.rule, f"{100 * t.train:.1f}", percent(t.test)) for t in together.teams]
        parts += [f"The best, chosen on {together.train_scenes} contents and tested on the others:"]
        parts += [_table(("metrics", "rule", "chosen on", "tested on"), rows)]
    return "\n\n".join(parts)


def headline(verdict: Verdict) -> str:
    """Which data, in a line."""
    pairs = verdict.manifest.pairs
    whole = overall_pairs(pairs)
    alike = sum(pair.p_a == 0.5 for pair, inside in zip(pairs, whole, strict=True) if inside)
    scenes = len({pair.scene for pair in pairs})
    return f"{verdict.name}: {whole.sum()} pairs of {len(verdict.manifest.images)} images, {scenes} contents, {alike} found alike"


def agreement_table(verdict: Verdict) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """(heads, rows of texts): metric, mode, 2AFC in % with its interval, groups, and what else there is."""
    entries = verdict.agreements
    groups = list(dict.fromkeys(name for entry in entries for name in entry.groups))
    votes, three, mos = (any(getattr(entry, key) is not None for entry in entries) for key in ("votes", "three_way", "mos"))
    limit = next((entry.votes_limit for entry in entries if entry.votes_limit is not None), None)
    heads = ("metric", "mode", "2AFC %", "95 %", *groups)
    heads += ((f"votes % (of {100 * (limit or 0):.1f})",) if votes else ()) + (("3AFC %",) if three else ())
    heads += ("SRCC", "KRCC", "PLCC") if mos else ()
    rows = []
    for entry in entries:
        row = (entry.scored.name, mode(entry), percent(entry.overall), interval(entry.overall))
        row += tuple(percent(entry.groups.get(name)) for name in groups)
        row += ((_share(entry.votes),) if votes else ()) + ((percent(entry.three_way and entry.three_way.share),) if three else ())
        row += tuple(_number(getattr(entry.mos, key) if entry.mos else None) for key in ("srcc", "krcc", "plcc")) if mos else ()
        rows.append(row)
    return heads, rows


def mode(entry: Agreement) -> str:
    """NR, FR, file; an asymmetric full-reference metric says so."""
    return entry.scored.mode + (" asymmetric" if entry.scored.asymmetric else "")


def percent(share: Share | None) -> str:
    return _share(share.value if share else None)


def interval(share: Share | None) -> str:
    return f"{100 * share.interval.low:.1f}..{100 * share.interval.high:.1f}" if share else MISSING


def _share(value: float | None) -> str:
    return MISSING if value is None or not math.isfinite(value) else f"{100 * value:.1f}"


def _number(value: float | None) -> str:
    return MISSING if value is None or not math.isfinite(value) else f"{value:.3f}"


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
    lines = []
    for row in (heads, *rows):
        cells = [cell.ljust(width) if k == 0 else cell.rjust(width) for k, (cell, width) in enumerate(zip(row, widths, strict=True))]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def _rows(together: Complementarity) -> tuple[Sequence[str], Sequence[int], np.ndarray]:
    return together.names, together.errors, together.rescue


def _share_dict(share: Share | None) -> dict[str, Any] | None:
    if share is None:
        return None
    return {
        **{"accuracy": share.value, "low": share.interval.low, "high": share.interval.high},
        **{"pairs": share.pairs, "contents": share.scenes},
    }


def _agreement(entry: Agreement) -> dict[str, Any]:
    scored, three, mos = entry.scored, entry.three_way, entry.mos
    return {
        "identity": scored.identity,
        "mode": scored.mode,
        "lower_better": scored.lower_better,
        "asymmetric": scored.asymmetric,
        "overall": _share_dict(entry.overall),
        "groups": {name: _share_dict(share) for name, share in entry.groups.items()},
        "votes": entry.votes,
        "votes_limit": entry.votes_limit,
        "three_way": {**(_share_dict(three.share) or {}), "threshold": three.threshold, "train_accuracy": three.train} if three else None,
        "mos": {
            **{"srcc": mos.srcc, "srcc_low": mos.srcc_interval.low, "srcc_high": mos.srcc_interval.high, "krcc": mos.krcc},
            **{"plcc": mos.plcc, "plcc_plain": mos.plcc_plain, "images": mos.images},
        }
        if mos
        else None,
    }


def _screening(verdict: Verdict) -> dict[str, Any] | None:
    if verdict.screening is None:
        return None
    rows = {row.name: {"train": _share_dict(row.train), "test": _share_dict(row.test)} for row in verdict.screening.rows}
    return {"train_pairs": len(verdict.screening.train.pairs), "test_pairs": len(verdict.screening.test.pairs), "metrics": rows}


def _together(together: Complementarity) -> dict[str, Any]:
    return {
        "names": together.names,
        "pairs": together.pairs,
        "errors": together.errors,
        "rescue": together.rescue.tolist(),
        "jaccard": together.jaccard.tolist(),
        "phi": together.phi.tolist(),
        "train_contents": together.train_scenes,
        "teams": [
            {"metrics": team.names, "rule": team.rule, "train_accuracy": team.train, "test": _share_dict(team.test)}
            for team in together.teams
        ],
    }


def _plain(value: Any) -> Any:
    """NaN as None, all the way down."""
    if isinstance(value, dict):
        return {key: _plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
