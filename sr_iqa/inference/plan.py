"""What is to be made in a folder of results, read from a command line and checked before any work."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import UsageError, UserError
from .bands import AUTO_CPU, AUTO_GPU
from .budget import Dial
from .compare import PAGE, pictures_folder
from .inputs import Job, Naming, find_jobs
from .pictures import LARGEST_MAX, MAX_PIXELS


@dataclass(frozen=True)
class Plan:
    """How a folder of results is to be made."""

    jobs: Sequence[Job]
    naming: Naming
    dial: Dial = Dial()
    quality: int = 95
    """Of JPEG and WebP."""
    auto: bool = False
    """Whether the upscaler's batch and tile may be halved where the memory does not suffice."""
    fresh: bool = False
    """Do everything again."""
    max_pixels: int = MAX_PIXELS
    compare: bool = False
    """Whether to write a page with sliders."""
    others: int = 0
    """Files among the inputs that are no images."""

    @property
    def page(self) -> Path:
        return self.naming.folder / PAGE


def plan_folder(
    inputs: Sequence[Path | str],
    naming: Naming,
    dial: Dial = Dial(),  # noqa: B008 (frozen)
    recursive: bool = False,
    quality: int = 95,
    max_pixels: float = MAX_PIXELS,
    compare: bool = False,
    **options: bool,
) -> Plan:
    """A plan whose inputs and names are checked.

    Raises:
        UsageError: numbers out of range. UserError: as `find_jobs`, or a result where the page's pictures are to lie.
    """
    if not 1 <= quality <= 100:
        raise UsageError(f"--quality {quality}: goes from 1 to 100")
    if not 1 <= max_pixels <= LARGEST_MAX:
        raise UsageError(f"--max-pixels {max_pixels:g}: goes from 1 to {LARGEST_MAX}, more cannot be decoded")
    titles = [f"s{scale:g}" for scale in dial.scales] if len(dial.scales) > 1 else [""]
    found = find_jobs(inputs, naming, titles, recursive)
    pictures = pictures_folder(naming.folder / PAGE)
    for job in found.jobs if compare else ():
        for output in job.outputs.values():
            if output.is_relative_to(pictures):
                raise UserError(f"{output}: with --compare, {pictures} is for the page's pictures; rename that folder of the inputs.")
    return Plan(found.jobs, naming, dial, quality, max_pixels=int(max_pixels), compare=compare, others=found.others, **options)


def parse_tile(text: str, device: str) -> tuple[int, bool]:
    """`--tile`: a number or auto -> the side to begin with, and whether it may be halved. Raises UsageError."""
    if text.strip().lower() == "auto":
        return (AUTO_GPU if device.startswith("cuda") else AUTO_CPU), True
    if not text.strip().isdecimal():
        raise UsageError(f"--tile {text}: give the side in pixels, 0 for whole images, or auto")
    return int(text), False
