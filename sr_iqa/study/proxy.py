"""The proxy gap: how much of a variant's gain is on the metric that it optimised, and how much is seen by those that it did not.

Gains are differences of means from the baseline, signed so that better is positive, in units of the metric's spread (standard deviation)
over all GTs of the held-out sets. Only no-reference columns have such a spread: a GT has no distance to itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypedDict

import numpy as np

from sr_iqa.errors import UserError
from sr_iqa.iqa.ensemble import read_ensemble
from sr_iqa.iqa.ensemble_text import is_composed

from .results import Results, Variant, columns_of

FOLLOWS_SCORES = ("sma", "smp", "amo")


class ProxyGap(TypedDict):
    """results["proxy_gap"][variant]."""

    optimised: list[str]
    """The metrics that its sampling or its rewards follow, and the members of ensembles among them."""
    gains: dict[str, float]
    """Column -> gain over the baseline in spreads of the GTs."""
    optimised_gain: float | None
    """Mean gain on the optimised columns; None where there are none."""
    other_gain: float | None
    """Mean gain on the others."""
    gap: float | None
    """optimised_gain - other_gain; None where one of the two is."""


def optimised_by(variant: Variant) -> list[str]:
    """The metrics that a variant's options make it follow, its rewards' last, and then the members of ensembles among them."""
    followed = followed_metrics(variant["options"])
    return [*dict.fromkeys([*followed, *(member for name in followed for member in _members(name))])]


def followed_metrics(options: Mapping[str, Any]) -> list[str]:
    """The metrics that sampling and rewards of a run with these options (as plain values) follow, in this order."""
    sampling = options.get("datasets", {}).get("train", {}).get("sampling", {})
    found = [sampling["metric"]] if sampling.get("strategy") in FOLLOWS_SCORES and sampling.get("metric") else []
    return [*dict.fromkeys([*found, *(reward["metric"] for reward in options.get("train", {}).get("reward_opt", ()))])]


def _members(name: str) -> tuple[str, ...]:
    """Of an ensemble; none of other metrics, nor where its file is no longer there."""
    try:
        return read_ensemble(name)[0].names if is_composed(name) else ()
    except UserError:
        return ()


def add_proxy_gaps(results: Results, baseline: str) -> None:
    """Adds results["proxy_gap"]: every variant but the baseline."""
    spreads = {
        column: float(np.std([value for scores in gold["scores"].values() for value in scores.values()], ddof=1))
        for column, gold in results["gold_standard"].items()
    }
    columns = {name: entry for name, entry in columns_of(results).items() if spreads.get(name)}
    results["proxy_gap"] = {
        name: _gap(results["variants"][baseline], variant, columns, spreads)
        for name, variant in results["variants"].items()
        if name != baseline
    }


def _gap(baseline: Variant, variant: Variant, columns: dict[str, Any], spreads: dict[str, float]) -> ProxyGap:
    gains = {}
    for column, entry in columns.items():
        if column in variant["metrics"] and column in baseline["metrics"]:
            difference = variant["metrics"][column]["mean"] - baseline["metrics"][column]["mean"]
            gains[column] = (-difference if entry["lower_better"] else difference) / spreads[column]
    optimised = optimised_by(variant)
    on, off = (_mean([gain for column, gain in gains.items() if (column in optimised) == wanted]) for wanted in (True, False))
    gap = None if on is None or off is None else on - off
    return {"optimised": optimised, "gains": gains, "optimised_gain": on, "other_gain": off, "gap": gap}


def _mean(gains: list[float]) -> float | None:
    return float(np.mean(gains)) if gains else None
