"""From the runs of a study to its results: rows merged over seeds, Gold Standard, statistics, expectations, pictures."""

from __future__ import annotations

import shlex
import sys
from collections import Counter
from collections.abc import Mapping
from typing import Any

import torch

from sr_iqa.checkpoints import file_hash
from sr_iqa.data.gtset import STANDINGS
from sr_iqa.data.store import open_reader
from sr_iqa.evaluation import describe_sets, gold_standard, low_quality
from sr_iqa.images import read_image
from sr_iqa.scorecard import member_name
from sr_iqa.training.folder import provenance

from .dial_runs import add_dials, dial_files
from .dials import ScaleRow, add_dial_statistics
from .equal_q import compare_at_equal_q
from .meetings import compare_dials
from .pictures import SetImages
from .proxy import add_proxy_gaps
from .results import Results, merge_seeds, order_checks
from .results import Variant as Row
from .significance import add_statistics
from .study import Study, best_device
from .tuning import compare_tuning


def collect(study: Study, rows: dict[str, list[Row]], data: dict[str, Any], dials: Mapping[str, list[ScaleRow]] | None = None) -> Results:
    """results.json of the variants in `rows` (variant -> one row per seed).

    `data` is added to what is said of the data; `dials` is what evaluate_dials found.
    """
    held_out, most = study.held_out(), study.protocol.max_images
    scale = study.options(study.baseline, study.seeds[0]).scale
    results: Results = {
        "variants": {name: merge_seeds(found) for name, found in rows.items()},
        "gold_standard": gold_standard(held_out, study.judges, scale, most, best_device()),
        "optimised_metric": study.optimised_metric,
        "reference": study.reference,
        "data": {
            "sets": describe_sets(held_out, most),
            "standings": training_standings(study),
            "held-out data": held_out.name or str(held_out.dataroot_gt),
            **data,
        },
        "provenance": {
            **provenance(0),
            "command": shlex.join(["sr-iqa", *sys.argv[1:]]),
            "threads": torch.get_num_threads(),
            "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU",
            "base options": {study.base.name: file_hash(study.base)},
        },
    }
    add_dials(results, dials or {}, study.dni)
    baseline = study.baseline if study.baseline in rows else next(iter(rows))
    add_statistics(results, baseline)
    add_dial_statistics(results)
    compare_dials(results)
    add_proxy_gaps(results, baseline)
    pair = study.lora_against_full
    if pair and all(name in rows for name in pair):
        results["reward_comparison"] = compare_tuning(results, *pair)
    if at_equal_q := [name for name in study.equal_q if name in rows]:
        results["equal_q"] = compare_at_equal_q(results, at_equal_q)
    order = [name for name in study.expected_order if name in rows]
    results["checks"] = [
        *order_checks(results, order, study.optimised_metric, rising=True),
        *(order_checks(results, order, "psnr_original", rising=False) if _has(results, order, "psnr_original") else ()),
    ]
    return results


def training_standings(study: Study) -> dict[str, int]:
    """Standing (gtset.STANDINGS) -> how many GTs of the training sets have it."""
    train = study.options(study.baseline, study.seeds[0]).datasets.train
    sets = open_reader(train).sets if train else ()
    return dict(Counter(STANDINGS[gt_set.standing(member)] for gt_set in sets for member in range(len(gt_set.paths))))


def pictures(study: Study, names: list[str], results: Results) -> dict[str, SetImages]:
    """The held-out sets with the first seed's outputs, for the report; `names` are the variants that it has."""
    data, seed = study.held_out(), study.seeds[0]
    reader, scale = open_reader(data), study.options(study.baseline, seed).scale
    images = {}
    for i, entry in enumerate(reader.sets[: study.protocol.max_images]):
        gts = {member_name(k): reader.image(i, k) for k in range(len(entry.paths))}
        outputs = {name: read_image(study.outputs(name, seed) / f"{entry.name}.png") for name in names}
        images[entry.name] = SetImages(gts, outputs, low_quality(reader, i, data, scale), dial_files(study, results, entry.name))
    return images


def _has(results: Results, names: list[str], column: str) -> bool:
    return all(column in results["variants"][name]["metrics"] for name in names)
