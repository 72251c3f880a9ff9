"""Fills the memory of an online strategy ahead of training (sr_iqa/data/choices.py): every crop of the grid, scored once."""

from __future__ import annotations

import torch
from torch import Tensor

from sr_iqa.config.models import Options, TrainDataOptions
from sr_iqa.data.choices import Choices
from sr_iqa.data.sets import fingerprint, load_sets
from sr_iqa.data.store import Reader
from sr_iqa.data.stream import crop_step
from sr_iqa.distributed import check_launch, share, wait_for_everyone
from sr_iqa.errors import UsageError
from sr_iqa.sampling import OnlineStrategy, build_strategy

from .metrics import Metric, create_metric
from .scores import BATCH_PX


def choices_of(data: TrainDataOptions, scale: int, reader: Reader, metric: Metric) -> Choices:
    """The memory that belongs to data, strategy, metric, crop size and grid."""
    step = crop_step(data, scale)
    made_from = {
        "data": fingerprint(data.model_copy(update={"scores": None})),
        "strategy": data.sampling.strategy,
        "metric": metric.identity,
        "gt_size": data.gt_size,
        "scale": scale,
        "step": step,
    }
    folder = data.sampling.choices or data.dataroot_gt.with_name(f"{data.dataroot_gt.name}.choices")
    sizes = [reader.size(i) for i in range(len(reader.sets))]
    return Choices(folder, made_from, sizes, data.gt_size, step)


def score_all_crops(options: Options, device: str | torch.device = "cpu") -> str:
    """Fills the memory of an option file's training run; returns a line about it.

    Raises:
        UserError: the run has no such memory, or data or metric cannot be used.
    """
    check_launch()
    data = options.datasets.train
    if data is None or data.sampling.grid == 1 or data.sampling.metric is None:
        raise UsageError("there is nothing to fill: choices are remembered by amo and its like with datasets.train.sampling.grid above 1")
    strategy = build_strategy(data.sampling)
    if not isinstance(strategy, OnlineStrategy):
        raise UsageError(f"datasets.train.sampling.strategy: {data.sampling.strategy} draws from whole images' scores and scores no crops")
    reader, _ = load_sets(data, options.scale)
    metric = create_metric(data.sampling.metric, device)
    choices = choices_of(data, options.scale, reader, metric)
    score_crops(data, reader, strategy, metric, choices)
    return f"{choices.known:.0%} of the choices of {len(choices)} crops are remembered: {choices.path}"


def score_crops(data: TrainDataOptions, reader: Reader, strategy: OnlineStrategy, metric: Metric, choices: Choices) -> int:
    """Chooses for every crop that is not remembered; returns how many this process scored.

    Under `accelerate launch` each process takes its share of the sets; all write to one file. A stopped run goes on where it was.
    """
    scored = 0
    for i in share(len(reader.sets)):
        corners = choices.corners(i)
        open_ = [(y, x) for y, x in corners if choices.member(choices.place(i, y, x)) >= len(reader.sets[i].paths)]
        if open_:
            images = [torch.from_numpy(reader.image(i, k)).permute(2, 0, 1) for k in range(len(reader.sets[i].paths))]
            _choose(torch.stack(images).to(metric.device), i, open_, data.gt_size, strategy, metric, choices)
            choices.flush()
            scored += len(open_)
    wait_for_everyone()
    return scored


@torch.no_grad()
def _choose(
    images: Tensor, i: int, corners: list[tuple[int, int]], side: int, strategy: OnlineStrategy, metric: Metric, choices: Choices
) -> None:
    """Notes the winners of the crops of images uint8 (K + 1, 3, h, w) at the corners, a batch at a time."""
    at_once = max(1, BATCH_PX // (len(images) * side * side))
    for first in range(0, len(corners), at_once):
        part = corners[first : first + at_once]
        crops = torch.stack([images[..., y : y + side, x : x + side] for y, x in part]).float() / 255
        scores = metric.verdict(metric.opinions(crops.flatten(0, 1)).unflatten(0, crops.shape[:2]))
        places = torch.tensor([choices.place(i, y, x) for y, x in part])
        choices.note(places, strategy.choose_online(scores).cpu())
