"""The curves of a study: the adapters of its variants at several scales, and networks between two of its variants (DNI).

root/scales/seed<S>/<variant>/<scale>/      SR images at a scale (those at 1 are the variant's own, in outputs/)
root/scales/seed<S>/dni of .../<alpha>/     the same between two variants
root/records/seed<S>/...                    what each was evaluated with
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from torch import nn

from sr_iqa.training.checkpoint import load_trained

from .dials import ScaleRow, dials, scale_rows
from .meetings import evaluate_meetings
from .results import Results, merge_seeds
from .results import Variant as Row
from .scales import DEFAULT_SCALES, AdapterDial, DniDial, Metrics, Turned, evaluate_scales, warn_beyond, weights_identity
from .study import Study, best_device

Say = Callable[[str], None]
Values = Callable[[Sequence[float]], dict[float, Metrics]]
"""Scales -> their values, of one seed; evaluates what is not known."""
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
    curves = {
        name: (name, scales, {row["seed"]: _adapter_values(study, name, row) for row in trained})
        for name, trained in rows.items()
        if (scales := scales_of(study, name))
    }
    if study.dni and all(name in rows for name in study.dni):
        seeds = [row["seed"] for row in rows[study.dni[0]] if study.is_trained(study.dni[1], row["seed"])]
        if seeds:
            curves[DNI] = (" → ".join(study.dni), dni_scales(study), {seed: _between_values(study, study.dni, seed) for seed in seeds})
    found, turns = {}, {}
    for key, (name, scales, by_seed) in curves.items():
        warn_beyond(scales, f"{name}: {'alpha' if key == DNI else 'adapter scale'}")
        found[key] = _rows(by_seed, scales)
        turns[name] = partial(_turn, by_seed)
        say(f"evaluated {name} at {len(scales)} scales")
    results: Results = {"variants": {n: merge_seeds(trained) for n, trained in rows.items()}, "optimised_metric": study.optimised_metric}
    add_dials(results, found, study.dni)
    evaluate_meetings(results, turns)
    return found


def _rows(by_seed: Mapping[int, Values], scales: Sequence[float]) -> list[ScaleRow]:
    return scale_rows({seed: values(scales) for seed, values in by_seed.items()})


def _turn(by_seed: Mapping[int, Values], scale: float) -> ScaleRow:
    return _rows(by_seed, [scale])[0]


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


def _adapter_values(study: Study, name: str, row: Row) -> Values:
    """Of one run; those at 1 are the variant's own."""
    seed = row["seed"]
    folder = study.folder(name, seed).root
    evaluated = _evaluated(study, name, seed, AdapterDial(partial(load_trained, folder, best_device())), [folder])

    def values(scales: Sequence[float]) -> dict[float, Metrics]:
        found = evaluated([scale for scale in scales if scale != 1], partial(_adapter_place, study, name, seed))
        return {**found, 1.0: copy.deepcopy(row["metrics"])} if 1 in scales else found

    return values


def _between_values(study: Study, pair: tuple[str, str], seed: int) -> Values:
    """Between the networks of one seed."""
    first, second = (study.folder(name, seed).root for name in pair)
    dial = DniDial(lambda folder: load_trained(folder, best_device()), (first, second))
    return partial(_evaluated(study, pair[0], seed, dial, [first, second]), place=partial(_between_place, study, seed))


def _evaluated(study: Study, name: str, seed: int, dial: Turned, folders: Sequence[Path]) -> Callable[..., dict[float, Metrics]]:
    """(scales, place) -> values of a network with a dial, in the protocol of the study."""
    made_from = study.made_from(name, seed, " ".join(map(weights_identity, folders)))
    scale = study.options(name, seed).scale

    def judge(net: nn.Module, outputs: Path) -> Metrics:
        return study.judged(net, scale, outputs)

    return partial(evaluate_scales, dial, made_from=made_from, judge=judge, device=best_device())


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
