"""What a page shows of the curves: points to choose, and the held-out pictures at every scale, which one slider runs through."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sr_iqa.images import read_image

from .dial_figures import colour_of, dial_colour
from .dial_words import describe_dials
from .dials import Dial, as_variants, dials
from .pages import script_json
from .pictures import EACH, SetImages, busiest_place, enlarge, gt_note, thumbnail, webp_url
from .results import MetricValues, Results, columns_of, tier_spans
from .significance import can_tell
from .summary import Row, column_notes, table_rows

SIDES = (512, 256, 192)
"""In SR pixels, of what is shown of a picture: larger ones are cut where the scales differ most. The first at which LEAST_SETS fit."""
LEAST_SETS = 4


def dial_section(results: Results, images: Mapping[str, SetImages], room: int, numbered: Sequence[str]) -> dict[str, Any] | None:
    """The variables of dial.html.j2; None where there is no curve. The pictures take at most `room` bytes.

    `numbered`: the variants that are numbered in the page's table, in its order.
    """
    curves = dials(results)
    if not curves:
        return None
    flat = as_variants(results, curves)
    colours = {dial.label(row["scale"]): dial_colour(results, dial) for dial in curves for row in dial.rows}
    colours |= {name: colour_of(results, name) for name in flat["variants"] if name not in colours}
    shown = pictured_sets(results, images, room)
    return {
        "sentences": describe_dials(results),
        "columns": column_notes(flat),
        "tiers": tier_spans(flat),
        "rows": table_rows(flat),
        "tables": {dial.name: scale_table(results, dial) for dial in curves},
        "colours": colours,
        "numbered": numbered,
        "q": results["optimised_metric"],
        "adapted": curves[0].kind == "adapter",
        "interpolated": any(dial.kind == "dni" for dial in curves),
        "pictures": bool(shown),
        "too_large": bool(images) and not shown,
        "bytes": sum(map(_size, shown)),
        "data": script_json({**plane_data(results, numbered), "q": results["optimised_metric"], "sets": shown}),
    }


def scale_table(results: Results, dial: Dial) -> list[Row]:
    """The rows of one curve: its best and what is not worse than it are marked among its own scales."""
    return [row for row in table_rows(as_variants(results, [dial], others=False)) if row.kind == "variant"]


def plane_data(results: Results, numbered: Sequence[str]) -> dict[str, Any]:
    """What the page's script draws a plane of any two columns from: variants as numbered points, curves, the Gold Standard."""
    curves = dials(results)
    columns = columns_of(as_variants(results, curves)) if curves else columns_of(results)
    points = [
        {
            "number": number,
            "name": name,
            "colour": colour_of(results, name),
            "values": _values(results, results["variants"][name]["metrics"]),
        }
        for number, name in enumerate(numbered, 1)
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
    gold = {c: entry["mean"] for c, entry in results["gold_standard"].items() if np.isfinite(entry["mean"])}
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
    """Of chosen_sets those that fit into `room` bytes, cut to the largest of SIDES at which LEAST_SETS of them do."""
    names, found = chosen_sets(results, [name for name, entry in images.items() if entry.scaled]), []
    for side in SIDES:
        found, left = [], room
        for name in names:
            entry = _pictured(results, name, images[name], side)
            if _size(entry) <= left:
                found.append(entry)
                left -= _size(entry)
        if len(found) >= min(LEAST_SETS, len(names)):
            break
    return found


def _size(entry: Mapping[str, Any]) -> int:
    """Bytes of a set's pictures, as they are embedded."""
    return sum(map(len, entry["pool"])) + len(entry["thumbnail"])


def chosen_sets(results: Results, names: Sequence[str]) -> list[str]:
    """Largest gain in Q on the first curve from scale 0 to 1, largest loss, second largest gain, ...; those without a finite Q are last."""
    gains = _gains(results)
    finite = [name for name in names if np.isfinite(gains[name])]
    lower_better = dials(results)[0].rows[0]["metrics"][results["optimised_metric"]]["lower_better"]
    order = sorted(finite, key=lambda name: gains[name] if lower_better else -gains[name])
    turns = [order[k // 2] if k % 2 == 0 else order[-1 - k // 2] for k in range(len(order))]
    return [*turns, *(name for name in names if name not in finite)][: 2 * EACH]


def _gains(results: Results) -> dict[str, float]:
    """Set -> Q at scale 1 of the first curve minus Q at 0."""
    q, rows = results["optimised_metric"], dials(results)[0].rows
    start, end = (next(row["metrics"][q]["per_image"] for row in rows if row["scale"] == scale) for scale in (0, 1))
    return {name: end[name] - start[name] for name in start}


def _pictured(results: Results, name: str, images: SetImages, most: int) -> dict[str, Any]:
    """One set's pictures, each once in `pool`, and its values; what names them holds their places in the pool."""
    curves = [dial for dial in dials(results) if dial.name in images.scaled]
    outputs = {dial.name: [read_image(path) for path in images.scaled[dial.name]] for dial in curves}
    height, width = outputs[curves[0].name][0].shape[:2]
    y, x, _ = busiest_place([image for row in outputs.values() for image in row], most)
    inside = (slice(y, y + most), slice(x, x + most))
    pool: dict[str, int] = {}

    def kept(image: np.ndarray) -> int:
        return pool.setdefault(webp_url(image[inside]), len(pool))

    references = {} if images.lq is None else {"LQ (bicubic)": kept(enlarge(images.lq, (height, width)))}
    for gt in sorted(images.gts, key=lambda gt: (gt != "original", gt)):
        note = gt_note(results, name, gt)
        references[f"GT {gt}" + (f" ({note})" if note else "")] = kept(images.gts[gt])
    q, side = results["optimised_metric"], (min(width, most), min(height, most))
    gain = _gains(results)[name]
    columns = list(dict.fromkeys([q, "psnr_original"]))
    whole = side == (width, height)
    return {
        "image": name,
        "gain": f"{q} {gain:+.2f} from {dials(results)[0].sign} = 0 to 1" if np.isfinite(gain) else "",
        "cut": "" if whole else f"{side[0]}x{side[1]} pixels at ({x}, {y}) of {width}x{height}; the values are the whole picture's",
        "size": side,
        "thumbnail": thumbnail(next(iter([*images.gts.values(), *outputs[curves[0].name]])), 96),
        "references": references,
        "outputs": {dial: [kept(image) for image in row] for dial, row in outputs.items()},
        "values": {dial.name: [_of_image(row["metrics"], columns, name) for row in dial.rows] for dial in curves},
        "pool": list(pool),
    }


def _of_image(metrics: Mapping[str, MetricValues], columns: Sequence[str], image: str) -> dict[str, float]:
    found = {c: metrics[c]["per_image"][image] for c in columns if c in metrics}
    return {c: round(value, 4) for c, value in found.items() if np.isfinite(value)}
