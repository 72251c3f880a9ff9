"""What a page shows of the curves: points to choose, and the held-out pictures at every scale, which one slider runs through."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sr_iqa.images import read_image

from .dial_figures import colour_of, dial_colour
from .dials import Dial, as_variants, describe_dials, dials
from .pages import script_json
from .pictures import EACH, SetImages, busiest_place, enlarge, gt_note, thumbnail, webp_url
from .results import MetricValues, Results, arrow, columns_of, tier
from .significance import can_tell
from .summary import AGAINST, table_rows

MOST_SIDE = 512
"""Side in SR pixels of what is shown of a picture: larger ones are cut where the scales differ most."""


def dial_section(results: Results, images: Mapping[str, SetImages], room: int) -> dict[str, Any] | None:
    """The variables of dial.html.j2; None where there is no curve. The pictures take at most `room` bytes."""
    curves = dials(results)
    if not curves:
        return None
    flat = as_variants(results, curves)
    columns = columns_of(flat)
    groups = [tier(column) for column in columns.values()]
    heads = [{"name": c, "arrow": arrow(about["lower_better"]), "against": AGAINST[about["against"]]} for c, about in columns.items()]
    colours = {dial.label(row["scale"]): dial_colour(results, dial) for dial in curves for row in dial.rows}
    colours |= {name: colour_of(results, name) for name in flat["variants"] if name not in colours}
    shown = pictured_sets(results, images, room)
    return {
        "sentences": describe_dials(results),
        "columns": heads,
        "tiers": [(group, groups.count(group)) for group in dict.fromkeys(groups)],
        "rows": table_rows(flat),
        "scale_rows": [row for row in table_rows(as_variants(results, curves, others=False)) if row.kind == "variant"],
        "colours": colours,
        "numbered": list(results["variants"]),
        "q": results["optimised_metric"],
        "interpolated": any(dial.kind == "dni" for dial in curves),
        "pictures": bool(shown),
        "bytes": sum(map(_size, shown)),
        "data": script_json({**plane_data(results), "q": results["optimised_metric"], "sets": shown}),
    }


def plane_data(results: Results) -> dict[str, Any]:
    """What the page's script draws a plane of any two columns from: variants as numbered points, curves, the Gold Standard."""
    curves = dials(results)
    columns = columns_of(as_variants(results, curves)) if curves else columns_of(results)
    points = [
        {"number": number, "name": name, "colour": colour_of(results, name), "values": _values(results, variant["metrics"])}
        for number, (name, variant) in enumerate(results["variants"].items(), 1)
    ]
    drawn = [
        {
            "name": dial.name,
            "sign": dial.sign,
            "colour": dial_colour(results, dial),
            "dashed": dial.kind == "dni",
            "points": [{"scale": row["scale"], "values": _values(results, row["metrics"])} for row in dial.rows],
        }
        for dial in curves
    ]
    gold = {c: entry["mean"] for c, entry in results["gold_standard"].items()}
    return {"lower": {c: column["lower_better"] for c, column in columns.items()}, "points": points, "curves": drawn, "gold": gold}


def _values(results: Results, metrics: Mapping[str, MetricValues]) -> dict[str, list[float]]:
    """Column -> its finite mean, and the ends of its interval where there are enough photos for one."""
    told = can_tell(results)
    return {
        column: [values["mean"], *(values["interval"] if told and "interval" in values else ())]
        for column, values in metrics.items()
        if np.isfinite(values["mean"])
    }


def pictured_sets(results: Results, images: Mapping[str, SetImages], room: int) -> list[dict[str, Any]]:
    """The sets with the largest gains in Q on the first curve (scale 0 to 1) and those with the largest losses, in turn, while they fit."""
    curves = dials(results)
    found = []
    for name, gain in _in_turn(results, curves[0], [name for name, entry in images.items() if entry.scaled]):
        entry = _pictured(results, curves, name, images[name])
        entry["gain"] = gain
        room -= _size(entry)
        if room < 0:
            break
        found.append(entry)
    return found


def _size(entry: Mapping[str, Any]) -> int:
    """Bytes of a set's pictures, as they are embedded."""
    return sum(map(len, entry["pool"])) + len(entry["thumbnail"])


def _in_turn(results: Results, dial: Dial, names: Sequence[str]) -> list[tuple[str, str]]:
    """(set, its gain in words): largest gain, largest loss, second largest gain, ..."""
    q = results["optimised_metric"]
    start, end = (next(row["metrics"][q] for row in dial.rows if row["scale"] == scale) for scale in (0, 1))
    gains = {name: end["per_image"][name] - start["per_image"][name] for name in names}
    order = sorted(gains, key=lambda name: gains[name] if start["lower_better"] else -gains[name])
    turns = [order[k // 2] if k % 2 == 0 else order[-1 - k // 2] for k in range(len(order))]
    return [(name, f"{q} {gains[name]:+.2f} from {dial.sign} = 0 to 1") for name in turns[: 2 * EACH]]


def _pictured(results: Results, curves: Sequence[Dial], name: str, images: SetImages) -> dict[str, Any]:
    """One set's pictures, each once in `pool`, and its values; what names them holds their places in the pool."""
    outputs = {dial.name: [read_image(path) for path in images.scaled[dial.name]] for dial in curves if dial.name in images.scaled}
    height, width = next(iter(outputs.values()))[0].shape[:2]
    y, x, _ = busiest_place([image for row in outputs.values() for image in row], MOST_SIDE)
    inside = (slice(y, y + MOST_SIDE), slice(x, x + MOST_SIDE))
    pool: dict[str, int] = {}

    def kept(image: np.ndarray) -> int:
        return pool.setdefault(webp_url(image[inside]), len(pool))

    references = {} if images.lq is None else {"LQ (bicubic)": kept(enlarge(images.lq, (height, width)))}
    for gt in sorted(images.gts, key=lambda gt: (gt != "original", gt)):
        note = gt_note(results, name, gt)
        references[f"GT {gt}" + (f" ({note})" if note else "")] = kept(images.gts[gt])
    shown = {dial: [kept(image) for image in row] for dial, row in outputs.items()}
    columns = list(dict.fromkeys([results["optimised_metric"], "psnr_original"]))
    values = {dial.name: [_of_image(row["metrics"], columns, name) for row in dial.rows] for dial in curves if dial.name in outputs}
    whole = height <= MOST_SIDE and width <= MOST_SIDE
    side = (min(width, MOST_SIDE), min(height, MOST_SIDE))
    cut = "" if whole else f"{side[0]}x{side[1]} pixels at ({x}, {y}) of {width}x{height}; the values are the whole picture's"
    small = thumbnail(next(iter([*images.gts.values(), *outputs[next(iter(outputs))]])), 96)
    return {"image": name, "cut": cut, "thumbnail": small, "references": references, "outputs": shown, "values": values, "pool": list(pool)}


def _of_image(metrics: Mapping[str, MetricValues], columns: Sequence[str], image: str) -> dict[str, float]:
    found = {c: metrics[c]["per_image"][image] for c in columns if c in metrics}
    return {c: round(value, 4) for c, value in found.items() if np.isfinite(value)}
