"""Three rule-based annotators of the demo's enhanced GTs, with different tastes. They measure the signal; no quality metric is involved.

Each compares an enhanced luma with its original's and answers Positive, Similar or Negative, as HGGT's raters did.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

from .enhance import Image, blur


@dataclass(frozen=True)
class Measures:
    """What an enhancement did to a patch; amplitudes in 8-bit levels."""

    gain: float
    """Detail gained: log2 of the ratio of fine-detail standard deviations (enhanced / original)."""
    halo: float
    """Mean overshoot beyond the original's local range (7x7), over the tenth of the pixels with the steepest edges."""
    noise: float
    """Growth of the fine-detail RMS in the calmest quarter of the patch."""
    shift: float
    """Mean change of local brightness (33x33 means)."""


def measure(original: Image, enhanced: Image) -> Measures:
    """Compares two luma images (h, w) in [0, 1] of one scene."""
    fine_before, fine_after = original - blur(original, 2), enhanced - blur(enhanced, 2)
    gain = np.log2(max(float(fine_after.std()), 1e-4) / max(float(fine_before.std()), 1e-4))
    window = np.ones((7, 7), np.uint8)
    above = np.maximum(enhanced - cv2.dilate(original, window), 0)
    below = np.maximum(cv2.erode(original, window) - enhanced, 0)
    steepness = np.hypot(cv2.Sobel(original, -1, 1, 0), cv2.Sobel(original, -1, 0, 1))
    halo = (above + below)[steepness >= np.quantile(steepness, 0.9)].mean()
    activity = blur(fine_before**2, 4)
    calm = activity <= np.quantile(activity, 0.25)
    noise = np.sqrt((fine_after[calm] ** 2).mean()) - np.sqrt((fine_before[calm] ** 2).mean())
    shift = np.abs(cv2.blur(enhanced - original, (33, 33))).mean()
    return Measures(float(gain), float(255 * halo), float(255 * noise), float(255 * shift))


@dataclass(frozen=True)
class Annotator:
    """A rule in words, as written into the label files, and as two tests; Negative goes before Positive, Similar is the rest."""

    rule: str
    positive: Callable[[Measures], bool]
    negative: Callable[[Measures], bool]

    def label(self, measures: Measures) -> str:
        if self.negative(measures):
            return "Negative"
        return "Positive" if self.positive(measures) else "Similar"


ANNOTATORS: dict[str, Annotator] = {
    "A": Annotator(
        "rule: wants detail; Negative: gain < 0.45 or halo > 8; Positive: gain >= 0.7 and halo <= 7",
        positive=lambda m: m.gain >= 0.7 and m.halo <= 7,
        negative=lambda m: m.gain < 0.45 or m.halo > 8,
    ),
    "B": Annotator(
        "rule: dislikes halos; Negative: halo > 4.5; Positive: halo <= 2.5 and gain >= 0.5",
        positive=lambda m: m.halo <= 2.5 and m.gain >= 0.5,
        negative=lambda m: m.halo > 4.5,
    ),
    "C": Annotator(
        "rule: dislikes noise and changed tones; Negative: noise > 0.8 or shift > 2; Positive: noise <= 0.1, shift <= 0.8 and gain >= 0.5",
        positive=lambda m: m.noise <= 0.1 and m.shift <= 0.8 and m.gain >= 0.5,
        negative=lambda m: m.noise > 0.8 or m.shift > 2,
    ),
}
