"""`sr-iqa iqa agree` and `sr-iqa iqa complement`: from a manifest and names of metrics to figures, files and a page."""

from __future__ import annotations

import datetime
import platform
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sr_iqa import __version__
from sr_iqa.errors import UsageError, UserError
from sr_iqa.preferences.manifest import Manifest, read_manifest

from .agreement import Agreement, agreement, ranked
from .complementarity import Complementarity, complementarity
from .foreign import read_all_foreign
from .scoring import Scored, Scorer, Unusable, metric_names
from .screening import Score, Screening, screen


@dataclass(frozen=True)
class Request:
    """What is asked."""

    manifest: Path
    metrics: str
    """Names with commas between them, or all."""
    scores: tuple[Path, ...] = ()
    """Tables of foreign metrics' scores."""
    lower_better: tuple[str, ...] = ()
    """Those of their columns in which lower is better."""
    screen: int | None = None
    """Pairs of the first phase; None for one phase."""
    best: int = 7
    seed: int = 0
    device: str = "cpu"
    together: bool = False
    """Complementarity is what is asked for: where it cannot be had, that is an error."""


@dataclass(frozen=True)
class Verdict:
    """What was found."""

    manifest: Manifest
    name: str
    """The manifest's file name."""
    agreements: tuple[Agreement, ...]
    """The best metric first; with two phases of the best metrics, on the second one's scenes."""
    unusable: tuple[Unusable, ...]
    screening: Screening | None
    together: Complementarity | None
    """None for a single metric, or where people prefer nobody."""
    provenance: dict[str, Any]


def judge(request: Request, say: Callable[[str], None] = print) -> Verdict:
    """Score the manifest's images and compare metrics with people, and with each other.

    Raises:
        UserError: a manifest, table or image that cannot be read; a metric that cannot be used, unless `all` are asked for; none that can.
    """
    if request.best < 1 or (request.screen is not None and request.screen < 1):
        raise UsageError("--screen and --best take numbers of at least 1")
    if not request.metrics and not request.scores:
        raise UsageError("nothing to judge: give --metrics, --scores, or both")
    manifest = read_manifest(request.manifest)
    score = _score(request, manifest, say)
    screening = screen(score, manifest, request.screen, request.best, request.seed) if request.screen else None
    if screening:
        judged, agreements, unusable = screening.test, screening.agreements, screening.unusable
    else:
        judged = manifest
        scored, unusable = score(manifest, None)
        agreements = tuple(ranked([agreement(one, manifest, request.seed) for one in scored]))
    if not agreements:
        raise UserError("no metric can be used" + "".join(f"\n  {entry.name}: {entry.reason}" for entry in unusable[:20]))
    comparable = len(agreements) > 1 and any(entry.overall for entry in agreements)
    order = [entry.scored for entry in agreements]
    return Verdict(
        manifest=judged,
        name=request.manifest.name,
        agreements=agreements,
        unusable=tuple(unusable),
        screening=screening,
        together=complementarity(order, judged, request.seed) if comparable or request.together else None,
        provenance=_provenance(request, manifest),
    )


def _score(request: Request, manifest: Manifest, say: Callable[[str], None]) -> Score:
    """Scores parts of the manifest with the metrics that are asked for. Raises UserError for wrong tables, before any metric scores."""
    names, strict = metric_names(request.metrics) if request.metrics else ([], True)
    read_all_foreign(request.scores, manifest, request.lower_better)
    scorer = Scorer(request.manifest.absolute().parent, request.device, say)

    def score(part: Manifest, only: Collection[str] | None) -> tuple[list[Scored], list[Unusable]]:
        scored, unusable = scorer.score(part, [name for name in names if only is None or name in only], strict)
        foreign = read_all_foreign(request.scores, part, request.lower_better)
        taken = {one.name for one in scored}
        double = [one.name for one in foreign if one.name in taken]
        if double:
            raise UserError(f"two metrics are named {double[0]}; rename the column in the table of --scores")
        return scored + [one for one in foreign if only is None or one.name in only], unusable

    return score


def _provenance(request: Request, manifest: Manifest) -> dict[str, Any]:
    import torch

    return {
        "manifest": {"file": request.manifest.name, "fingerprint": manifest.fingerprint},
        "seed": request.seed,
        "device": torch.cuda.get_device_name(request.device) if request.device.startswith("cuda") else request.device,
        "versions": {"sr_iqa": __version__, "torch": torch.__version__, "python": platform.python_version()},
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
    }
