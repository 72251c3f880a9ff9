"""A verdict as plain values (JSON), as a table for other programs (CSV), and as text for the terminal."""

from __future__ import annotations

import csv
import json
import math
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sr_iqa.atomic import atomic_write

from .agreement import Agreement, Share, overall_pairs
from .complementarity import Complementarity, Team
from .correlation import Correlation
from .judges import Verdict
from .screening import Screening

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
    """Writes a row for each metric and group; the group `(all)` is the whole, which alone has votes and three answers."""
    rows = []
    for entry in verdict.agreements:
        values = _agreement(entry)
        facts = {key: values[key] for key in ("identity", "mode", "lower_better", "asymmetric")}
        whole = {key: values[key] for key in ("votes", "votes_limit")}
        three = {"three_way": values["three_way"]["accuracy"], "threshold": values["three_way"]["threshold"]} if values["three_way"] else {}
        parts = {"(all)": {"share": values["overall"], "mos": values["mos"]}, **values["groups"]}
        for name, given in parts.items():
            rest = {**whole, **three} if name == "(all)" else {}
            rows.append({"metric": entry.scored.name, "group": name, **facts, **(given["share"] or {}), **rest, **(given["mos"] or {})})
    with atomic_write(path) as file, file.open("w", encoding="utf-8", newline="") as out:
        writer = csv.DictWriter(out, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def text(verdict: Verdict) -> str:
    """What the terminal shows of `iqa agree`."""
    parts = [headline(verdict)]
    if verdict.screening:
        rows = [(row.name, percent(row.train), percent(row.test)) for row in verdict.screening.rows]
        first, second = screening_pairs(verdict.screening)
        parts.append(_table(("metric", f"2AFC %, screening ({first} pairs)", f"the other contents ({second})"), rows))
    parts.append(_table(*agreement_table(verdict)))
    parts += ["\n".join(_unusable(verdict))] if verdict.unusable else []
    return "\n\n".join(parts)


def _unusable(verdict: Verdict) -> list[str]:
    """A line for each reason, and the metrics that it holds for."""
    reasons: dict[str, list[str]] = {}
    for entry in verdict.unusable:
        alone = rf"(?<![\w+-]){re.escape(entry.name)}(?![\w+-])"
        reasons.setdefault(re.sub(alone, "it", entry.reason), []).append(entry.name)
    return [f"not used ({reason}): {', '.join(names)}" for reason, names in reasons.items()]


def together_text(verdict: Verdict) -> str:
    """What the terminal shows of `iqa complement`. Raises ValueError for a verdict without a comparison of metrics."""
    together = verdict.together
    if together is None:
        raise ValueError("the verdict has no comparison of metrics")
    names = together.names
    rescue = [
        (name, str(together.errors[k]), *(MISSING if j == k else _share(x) for j, x in enumerate(together.rescue[k])))
        for k, name in enumerate(names)
    ]
    overlap = [(name, *(MISSING if j == k else _number(x) for j, x in enumerate(together.jaccard[k]))) for k, name in enumerate(names)]
    parts = [
        headline(verdict),
        f"Accuracy in % of the column's metric where the row's errs, of {together.pairs} pairs:",
        _table(("metric", "errors", *names), rescue),
        "Errors in common / errors of either (Jaccard):",
        _table(("metric", *names), overlap),
    ]
    if together.teams:
        rows = [(*team_words(team), f"{100 * team.train:.1f}", percent(team.test), interval(team.test)) for team in together.teams]
        parts += [f"The best, chosen on {together.train_scenes} contents and tested on the others:"]
        parts += [_table(("metrics", "rule", "chosen on", "tested on", "95 %"), rows)]
    parts += ["\n".join(_unusable(verdict))] if verdict.unusable else []
    return "\n\n".join(parts)


def team_words(team: Team) -> tuple[str, str]:
    """A team's metrics and rule, as tables show them."""
    return " + ".join(team.names), team.rule if len(team.names) > 1 else "alone"


def screening_pairs(screening: Screening) -> tuple[int, int]:
    """How many pairs the figures of the two phases are of."""
    first, second = (int(overall_pairs(part.pairs).sum()) for part in (screening.train, screening.test))
    return first, second


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
    groups = list(entries[0].groups)
    votes, three, mos = (any(getattr(entry, key) is not None for entry in entries) for key in ("votes", "three_way", "mos"))
    limit = next((entry.votes_limit for entry in entries if entry.votes_limit is not None), None)
    heads = ("metric", "mode", "2AFC %", "95 %", *groups)
    heads += ((f"votes % (of {100 * (limit or 0):.1f})",) if votes else ()) + (("3AFC %",) if three else ())
    heads += ("SRCC", "KRCC", "PLCC") if mos else ()
    rows = []
    for entry in entries:
        row = (entry.scored.name, mode(entry), percent(entry.overall), interval(entry.overall))
        row += tuple(percent(entry.groups[name].share) for name in groups)
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
    """In %; of a single content nothing is known of others."""
    return f"{100 * share.interval.low:.1f}..{100 * share.interval.high:.1f}" if share and share.scenes > 1 else MISSING


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


def _share_dict(share: Share | None) -> dict[str, Any] | None:
    if share is None:
        return None
    return {
        **{"accuracy": share.value, "low": share.interval.low, "high": share.interval.high},
        **{"pairs": share.pairs, "contents": share.scenes},
    }


def _mos_dict(mos: Correlation | None) -> dict[str, Any] | None:
    if mos is None:
        return None
    return {
        **{"srcc": mos.srcc, "srcc_low": mos.srcc_interval.low, "srcc_high": mos.srcc_interval.high, "krcc": mos.krcc},
        **{"plcc": mos.plcc, "plcc_plain": mos.plcc_plain, "images": mos.images},
    }


def _agreement(entry: Agreement) -> dict[str, Any]:
    scored, three = entry.scored, entry.three_way
    return {
        "identity": scored.identity,
        "mode": scored.mode,
        "lower_better": scored.lower_better,
        "asymmetric": scored.asymmetric,
        "overall": _share_dict(entry.overall),
        "groups": {name: {"share": _share_dict(group.share), "mos": _mos_dict(group.mos)} for name, group in entry.groups.items()},
        "votes": entry.votes,
        "votes_limit": entry.votes_limit,
        "three_way": {**(_share_dict(three.share) or {}), "threshold": three.threshold, "train_accuracy": three.train} if three else None,
        "mos": _mos_dict(entry.mos),
    }


def _screening(verdict: Verdict) -> dict[str, Any] | None:
    if verdict.screening is None:
        return None
    rows = {row.name: {"train": _share_dict(row.train), "test": _share_dict(row.test)} for row in verdict.screening.rows}
    train, test = screening_pairs(verdict.screening)
    return {"train_pairs": train, "test_pairs": test, "metrics": rows}


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
