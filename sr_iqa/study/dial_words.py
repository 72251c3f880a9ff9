"""What curves show, in sentences computed from the figures; each is true of the networks whoever wins."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

from .dials import Dial, as_variants, compared, dials, row_as_variant
from .meetings import Against, Meeting, compared_names
from .results import MetricValues, Results, arrow, columns_of, digits_of, format_value
from .significance import LEAST_PHOTOS, can_tell


def describe_dials(results: Results) -> list[str]:
    """What was evaluated, what each curve does, what it costs at equal Q, and how sure that is."""
    curves, q = dials(results), results["optimised_metric"]
    if not curves:
        return []
    columns = columns_of(as_variants(results, curves))
    sentences = [_extent(results)]
    for dial in curves:
        sentences += [_course(results, dial, columns), *_turns(results, dial, columns[q]["lower_better"]), *_sought(dial, q)]
    met: list[Meeting] = results.get("dial_comparison", [])
    signs = {dial.name: dial.sign for dial in curves}
    sentences += [_meeting(meeting, columns, q, signs, can_tell(results)) for meeting in met]
    alone = [name for name in compared_names(results) if name not in {meeting["other"] for meeting in met}]
    if alone:
        names = ", ".join(alone)
        sentences.append(f"At equal {q} {curves[0].name} cannot be compared with {names}: its curve does not pass through their {q}.")
    steps = "The points of an adapter's curve come from one training run, so they are compared at equal steps. "
    return [
        *sentences,
        (steps if any(dial.kind == "adapter" for dial in curves) else "")
        + f"{q} is only a proxy: a better value is no proof of a better picture. Look at the columns that watch it, and at the pictures.",
    ]


def _extent(results: Results) -> str:
    """How many images and photos, and what they allow to say."""
    images = len(dials(results)[0].rows[0]["metrics"][results["optimised_metric"]]["per_image"])
    photos = results.get("statistics", {}).get("photos", 0)
    sure = "intervals are 95 % bootstrap intervals over the photos, and better or worse is said only where they exclude 0"
    few = f"with fewer than {LEAST_PHOTOS} photos no difference can be called significant"
    return f"{_counted(images, 'held-out image')} of {_counted(photos, 'source photo')}; {sure if can_tell(results) else few}."


def _counted(n: int, what: str) -> str:
    return f"{n} {what}{'' if n == 1 else 's'}"


def _course(results: Results, dial: Dial, columns: Mapping[str, MetricValues]) -> str:
    """From the first scale to 1: Q, the PSNR to the original, and what watches."""
    q = results["optimised_metric"]
    start, end = dial.rows[0], next(row for row in dial.rows if row["scale"] == 1)
    told = [c for c in (q, "psnr_original", "niqe", "grid") if c in start["metrics"]]
    words = []
    for column in dict.fromkeys(told):
        a, b = (row["metrics"][column]["mean"] for row in (start, end))
        digits = digits_of([a, b])
        words.append(f"{column} {arrow(columns[column]['lower_better'])} from {format_value(a, digits)} to {format_value(b, digits)}")
    found = compared(results, row_as_variant(end), row_as_variant(start), q) if can_tell(results) else None
    sure = f" ({q} {found.difference:+.2f}, 95 % {found.low:+.2f} to {found.high:+.2f})" if found else ""
    return f"{dial.name}: from {dial.sign} = 0 to {dial.sign} = 1 {', '.join(words)}{sure}."


def _turns(results: Results, dial: Dial, lower_better: bool) -> list[str]:
    """Where turning the dial up makes Q worse, as far as the images can tell."""
    q = results["optimised_metric"]
    clear, unclear = [], []
    for a, b in pairwise(dial.trained(q)):
        found = compared(results, row_as_variant(b), row_as_variant(a), q)
        if found and (found.difference > 0) == lower_better and found.difference:
            (clear if found.clear else unclear).append(f"from {dial.sign} = {a['scale']:g} to {b['scale']:g}")
    said = [f"{dial.name}: {q} becomes worse {', '.join(clear)}."] if clear else []
    way = "rises" if lower_better else "falls"
    return said + ([f"{dial.name}: {q} {way} {', '.join(unclear)}, which may be chance."] if unclear else [])


def _sought(dial: Dial, q: str) -> list[str]:
    """The scales that were evaluated beyond those asked for."""
    scales = [f"{row['scale']:g}" for row in dial.rows if row.get("sought")]
    return [f"{dial.name}: {dial.sign} = {' and '.join(scales)} evaluated too, to meet others at equal {q}."] if scales else []


def _meeting(meeting: Meeting, columns: Mapping[str, MetricValues], q: str, signs: Mapping[str, str], told: bool) -> str:
    """Both networks, always named, and each column that is not Q."""
    names, scales = (meeting["dial"], meeting["other"]), (meeting["scale"], meeting["other_scale"])
    sides = [name if scale is None else f"{name} at {signs[name]} = {scale:g}" for name, scale in zip(names, scales, strict=True)]
    qs = " and ".join(f"{value:.2f}" for value in meeting["q"])
    groups: dict[str, list[str]] = {}
    for column, found in meeting["columns"].items():
        lower = columns[column]["lower_better"]
        groups.setdefault(_verdict(found, lower, told and meeting["equal"]), []).append(_told(column, found, lower))
    words = [f"{verdict} {', '.join(groups[verdict])}" for verdict in VERDICTS if verdict in groups]
    return f"At {'equal' if meeting['equal'] else 'the nearest measured'} {q} ({qs}), {' against '.join(sides)}: {'; '.join(words)}."


VERDICTS = ("better on", "worse on", "no clear difference on", "higher on", "lower on", "equal:")


def _verdict(found: Against, lower_better: bool, told: bool) -> str:
    """Better or worse only where it can be told, else the plain direction."""
    if told:
        better = (found["difference"] < 0) == lower_better
        return ("better on" if better else "worse on") if found["clear"] else "no clear difference on"
    x, y = _shown(found)
    return "equal:" if x == y else "higher on" if found["difference"] > 0 else "lower on"


def _shown(found: Against) -> tuple[str, str]:
    digits = digits_of(found["values"])
    x, y = (format_value(value, digits) for value in found["values"])
    return x, y


def _told(column: str, found: Against, lower_better: bool) -> str:
    x, y = _shown(found)
    seeds = f" (in {found['agreeing']} of {found['seeds']} seeds)" if found["seeds"] > 1 else ""
    return f"{column} {arrow(lower_better)} {x} against {y}{seeds}"
