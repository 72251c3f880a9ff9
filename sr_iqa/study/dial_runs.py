"""The curves of a study: the adapters of its variants at several scales, and networks between two of its variants (DNI).

root/scales/seed<S>/<variant>/<scale>/      SR images at a scale (those at 1 are the variant's own, in outputs/)
root/scales/seed<S>/dni of .../<alpha>/     the same between two variants
root/records/seed<S>/...                    what each was evaluated with
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from torch import Tensor, nn

from sr_iqa.training.build import starting_network
from sr_iqa.training.checkpoint import load_trained
from sr_iqa.training.folder import final_weights

from .dials import ScaleRow, dials, scale_rows
from .results import Results
from .results import Variant as Row
from .scales import DEFAULT_SCALES, AdapterDial, DniDial, Metrics, evaluate_scales, plain_weights, warn_beyond, weights_identity
from .study import Study, best_device

Say = Callable[[str], None]
DNI = "/dni"
"""Stands for the curve between two variants; no variant can have this name, which could be no folder's."""


def scales_of(study: Study, name: str) -> tuple[float, ...]:
    """The scales of a variant's adapter; none where it has no adapter or nobody asked."""
    chosen = study.variants[name].adapter_scales or study.adapter_scales
    return chosen if chosen and study.options(name, study.seeds[0]).lora else ()


def dni_scales(study: Study) -> tuple[float, ...]:
    """The settings between two variants: the study's adapter scales, or the usual ones."""
    return study.adapter_scales or DEFAULT_SCALES


def dial_problems(study: Study) -> list[str]:
    """What keeps the curves that a study asks for from being drawn, one line each."""
    options = {name: study.options(name, study.seeds[0]) for name in study.variants}
    found = [
        f"variants.{name}.adapter_scales: the variant has no `lora`, so there is no adapter to scale"
        for name, variant in study.variants.items()
        if variant.adapter_scales and not options[name].lora
    ]
    if study.adapter_scales and not study.dni and not any(option.lora for option in options.values()):
        found.append("adapter_scales: no variant has `lora`, so there is no adapter to scale")
    if study.dni and options[study.dni[0]].network_g != options[study.dni[1]].network_g:
        found.append(f"dni: {' and '.join(study.dni)} have different network_g; only equal networks can be interpolated")
    return found


def evaluate_dials(study: Study, rows: Mapping[str, list[Row]], say: Say) -> dict[str, list[ScaleRow]]:
    """Variant (or "dni") -> rows at its scales, of all trained seeds; nothing that is known is evaluated again.

    `rows`: variant -> one row per trained seed.
    """
    found = {}
    for name, trained in rows.items():
        if scales := scales_of(study, name):
            warn_beyond(scales, f"{name}: adapter scale")
            found[name] = scale_rows({row["seed"]: _adapter_values(study, name, row, say) for row in trained})
    if study.dni and all(name in rows for name in study.dni):
        warn_beyond(dni_scales(study), "dni: alpha")
        seeds = [row["seed"] for row in rows[study.dni[0]] if study.is_trained(study.dni[1], row["seed"])]
        if seeds:
            found[DNI] = scale_rows({seed: _between_values(study, study.dni, seed, say) for seed in seeds})
    return found


def add_dials(results: Results, found: Mapping[str, list[ScaleRow]], between: tuple[str, str] | None = None) -> None:
    """Puts what evaluate_dials found into results.json: `scales` of variants, and `dni`."""
    for name, rows in found.items():
        if name == DNI:
            results["dni"] = {"between": list(between or ()), "scales": rows}
        else:
            results["variants"][name]["scales"] = rows


def dial_files(study: Study, results: Results, image: str) -> dict[str, list[Path]]:
    """Curve -> the first seed's output of a held-out set at each of its scales, for those that have them all."""
    seed, found = study.seeds[0], {}
    for dial in dials(results):
        place = partial(_adapter_place, study, dial.name, seed) if dial.kind == "adapter" else partial(_between_place, study, seed)
        files = [place(row["scale"])[1] / f"{image}.png" for row in dial.rows]
        if all(path.is_file() for path in files):
            found[dial.name] = files
    return found


def _adapter_values(study: Study, name: str, row: Row, say: Say) -> dict[float, Metrics]:
    """Scale -> values of one run; those at 1 are the variant's own."""
    seed, folder = row["seed"], study.folder(name, row["seed"]).root
    options = study.options(name, seed)
    made_from = study.made_from(weights_identity(final_weights(folder)))
    dial = AdapterDial(partial(load_trained, folder, best_device()))
    others = [scale for scale in scales_of(study, name) if scale != 1]

    def judge(net: nn.Module, outputs: Path) -> Metrics:
        return study.judged(net, options.scale, outputs)

    found = evaluate_scales(dial, others, partial(_adapter_place, study, name, seed), made_from, judge)
    say(f"evaluated {name} (seed {seed}) at {len(others)} more scales")
    return {**found, 1.0: copy.deepcopy(row["metrics"])}


def _between_values(study: Study, pair: tuple[str, str], seed: int, say: Say) -> dict[float, Metrics]:
    """Setting -> values between the networks of one seed."""
    options = study.options(pair[0], seed)
    folders = [study.folder(name, seed).root for name in pair]

    def load() -> tuple[nn.Module, dict[str, Tensor], dict[str, Tensor]]:
        a, b = (plain_weights(load_trained(folder, best_device())) for folder in folders)
        return starting_network(options).to(best_device()).eval(), a, b

    def judge(net: nn.Module, outputs: Path) -> Metrics:
        return study.judged(net, options.scale, outputs)

    made_from = study.made_from(" ".join(weights_identity(final_weights(folder)) for folder in folders))
    found = evaluate_scales(DniDial(load), dni_scales(study), partial(_between_place, study, seed), made_from, judge)
    say(f"evaluated {len(found)} networks between {' and '.join(pair)} (seed {seed})")
    return found


def _adapter_place(study: Study, name: str, seed: int, scale: float) -> tuple[Path, Path]:
    if scale == 1:
        return study.root / "records" / f"seed{seed}" / f"{name}.evaluated.json", study.outputs(name, seed)
    return _place(study, seed, name, scale)


def _between_place(study: Study, seed: int, scale: float) -> tuple[Path, Path]:
    return _place(study, seed, "dni of " + " and ".join(study.dni or ()), scale)


def _place(study: Study, seed: int, name: str, scale: float) -> tuple[Path, Path]:
    """The record of the values at a scale, and the folder of the outputs."""
    setting = f"{scale:.12g}"
    record = study.root / "records" / f"seed{seed}" / f"{name}.scale {setting}.json"
    return record, study.root / "scales" / f"seed{seed}" / name / setting
