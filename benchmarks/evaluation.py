"""Evaluating a folder of outputs against several GTs: ours against HGGT's way, a script per metric that reads everything again.

HGGT's scripts (scripts/metrics/calculate_multigt_labeled_*.py, commit b735378) are restated here on the same libraries: PSNR and SSIM by
BasicSR, LPIPS on AlexNet, NIQE by BasicSR; MUSIQ, which HGGT does not report, by pyiqa. By the clock, the same threads on both sides.

python -m benchmarks.evaluation [--images FOLDER] [--threads N]
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from sr_iqa.archs.basicsr_bridge import import_basicsr
from sr_iqa.evaluation import evaluate_folder
from sr_iqa.images import read_image, write_png
from sr_iqa.iqa.metrics import Metric, create_metric
from sr_iqa.iqa.pyiqa_bridge import build_pyiqa

from . import hggt, sets
from .report import Row, publish, ratio
from .timing import Work, race

import_basicsr()
import pyiqa  # noqa: E402 (after the import is mended)
from basicsr.metrics import calculate_niqe, calculate_psnr, calculate_ssim  # noqa: E402

SETS, BORDER = 6, 4
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
LEAST = 3.0


class Scripts:
    """HGGT's scripts, of which each reads all outputs, GTs and labels; a value is the mean over the effective positives."""

    def __init__(self, folder: Path, outputs: Path) -> None:
        self.outputs, self.sets = outputs, hggt.HGGTDataset(folder)
        self.lpips_net = build_pyiqa({"type": "LPIPS", "net": "alex", "version": "0.1"}, random_weights=True).to(DEVICE)
        self.musiq_net = pyiqa.create_metric("musiq", device=DEVICE, pretrained=False)

    def _each(self) -> Iterator[tuple[np.ndarray, list[np.ndarray]]]:
        """The output and the positives of every set, float32 BGR in [0, 1]; all GTs are decoded, as there."""
        for name in self.sets.names:
            output = hggt.decoded(self.outputs / f"{name}.png")
            gts = [hggt.decoded(self.sets.root / "images" / k / f"{name}_{k}.png") for k in hggt.FOLDERS[1:]]
            labels = self.sets.labels(name)
            yield output, [gt for gt, label in zip(gts, labels, strict=True) if label == "Positive"]

    def psnr_ssim(self) -> list[list[float]]:
        found = []
        for output, positives in self._each():
            pairs = [(gt * 255, output * 255) for gt in positives]
            psnr = [calculate_psnr(*pair, crop_border=BORDER) for pair in pairs]
            ssim = [calculate_ssim(*pair, crop_border=BORDER) for pair in pairs]
            found.append([float(np.mean(psnr)), float(np.mean(ssim))])
        return found

    def lpips(self) -> list[float]:
        return [float(np.mean([self.lpips_net(_tensor(output), _tensor(gt)).item() for gt in gts])) for output, gts in self._each()]

    def niqe(self) -> list[float]:
        return [float(calculate_niqe(cv2.imread(str(path)), crop_border=0)) for path in sorted(self.outputs.iterdir())]

    def musiq(self) -> list[float]:
        return [self.musiq_net(str(path)).item() for path in sorted(self.outputs.iterdir())]


def _tensor(image: np.ndarray) -> Tensor:
    """(H, W, 3) BGR -> (1, 3, H, W) RGB without its border."""
    rgb = np.ascontiguousarray(image[BORDER:-BORDER, BORDER:-BORDER, ::-1].transpose(2, 0, 1))
    return torch.from_numpy(rgb)[None].to(DEVICE)


def write_outputs(folder: Path, outputs: Path) -> Path:
    """Something like SR images: the originals, blurred."""
    for path in sorted((folder / "images" / "original").iterdir()):
        write_png(outputs / path.name, cv2.GaussianBlur(read_image(path), (0, 0), 1.2))
    return outputs


def in_turn(*scripts: Work) -> Work:
    return lambda: [script() for script in scripts]


def main() -> None:
    parser = sets.command_line(__doc__)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    cv2.setNumThreads(arguments.threads)
    metrics = {
        name: create_metric(name, DEVICE, random_weights=name in ("lpips", "musiq")) for name in ("psnr", "ssimc", "lpips", "niqe", "musiq")
    }
    with tempfile.TemporaryDirectory() as temporary:
        folder = sets.make_sets(Path(temporary) / "sets", SETS, arguments.images)
        outputs = write_outputs(folder, Path(temporary) / "outputs")
        scripts, data = Scripts(folder, outputs), sets.roots(folder)

        def ours(*names: str) -> Callable[[], object]:
            chosen: list[str | Metric] = [metrics[name] for name in names]
            return partial(evaluate_folder, outputs, data, chosen, 4, BORDER, device=DEVICE)

        work = {
            "scripts, NIQE": in_turn(scripts.psnr_ssim, scripts.lpips, scripts.niqe),
            "ours, NIQE": ours("psnr", "ssimc", "lpips", "niqe"),
            "scripts, MUSIQ": in_turn(scripts.psnr_ssim, scripts.lpips, scripts.musiq),
            "ours, MUSIQ": ours("psnr", "ssimc", "lpips", "musiq"),
            "scripts, PSNR and SSIM": scripts.psnr_ssim,
            "ours, PSNR and SSIM": ours("psnr", "ssimc"),
            "scripts, LPIPS": scripts.lpips,
            "ours, LPIPS": ours("lpips"),
        }
        found = {name: timing.wall_seconds / SETS for name, timing in race(work, arguments.rounds // 2, 1).items()}

    def row(what: str, key: str, least: float | None = None) -> Row:
        return ratio(what, "HGGT's scripts", found[f"scripts, {key}"], found[f"ours, {key}"], least, "An output, two positives.")

    rows = [
        row("PSNR, SSIM, LPIPS, NIQE", "NIQE", LEAST),
        row("PSNR, SSIM, LPIPS, MUSIQ", "MUSIQ", LEAST),
        row("PSNR, SSIM", "PSNR and SSIM"),
        row("LPIPS", "LPIPS"),
    ]
    about = "Evaluating a folder of 512x512 outputs, each against its positives, ours also against the original and for grid patterns"
    publish("evaluation", rows, f"{about}; by the clock, {arguments.threads} threads on both sides.")


if __name__ == "__main__":
    main()
