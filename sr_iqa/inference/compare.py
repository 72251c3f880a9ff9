"""Inputs and outputs under one slider: an HTML file with its pictures beside it, which needs neither network nor server."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from ..atomic import atomic_folder, atomic_write
from ..errors import DAMAGED_FILE, UserError, printable
from ..images import ImageError
from .kinds import LEVELS
from .pictures import MAX_PIXELS, Picture, any_size, read_picture, write_picture

PAGE = "compare.html"
"""What `infer --compare` writes."""
GENERATOR = b'<meta name="generator" content="sr_iqa: comparison">'
"""What our pages have in their heads."""
TEMPLATES = Path(__file__).parent / "templates"
INPUT = "input, bicubic"
BROWSERS_SHOW = (".png", ".jpg", ".jpeg", ".webp")
LARGEST = 50_000_000
"""Pixels of a picture on the page; larger ones are shown reduced."""


@dataclass(frozen=True)
class Compared:
    """An input and what was made of it. Files below the page's folder are shown as they are, other files and pictures are copied."""

    name: str
    before: Path | Picture
    outputs: Mapping[str, Path | Picture]
    """Title (such as `scale 0.5`) -> output; at least one. The page has one choice of titles for all images."""
    notes: Mapping[str, str] = field(default_factory=dict)
    """Title -> what there is to say of that output."""


def write_comparison(page: Path | str, images: Iterable[Compared], title: str = "Input and output") -> Path:
    """Writes `page` (.html) and, in a folder of the same name with `_files`, the inputs enlarged bicubically to the size of their outputs.

    An earlier page of that name is replaced, and nothing else. Images are read one after the other; `images` may be a generator.

    Raises:
        UserError: nothing to compare, a name that does not end in .html, or as `check_page`. ImageError: a file that cannot be read.
    """
    page = Path(page)
    if page.suffix.lower() not in (".html", ".htm"):
        raise UserError(f"{page}: a comparison is a page; give it a name that ends in .html")
    check_page(page)
    pictures = pictures_folder(page)
    with atomic_folder(pictures) as temporary:
        found = [_Writer(page, temporary, pictures.name, number).describe(image) for number, image in enumerate(images)]
        if not found:
            raise UserError(f"{page}: there are no images to compare")
    with atomic_write(page) as temporary:
        temporary.write_bytes(_render(found, title))
    return page


def pictures_folder(page: Path) -> Path:
    """The folder beside a page that holds its pictures."""
    return page.with_name(f"{page.stem}_files")


def is_page_picture(path: Path) -> bool:
    """Whether a file is called as the pictures that pages have in their folders."""
    return re.fullmatch(r"\d{4,}_(input|\d+)\.png", path.name) is not None


def check_page(page: Path) -> None:
    """UserError where a page, or the folder of its pictures, would replace what is not an earlier page's."""
    if os.path.lexists(page) and not (page.is_file() and GENERATOR in page.read_bytes()[:1000]):
        raise UserError(f"{page}: is there already, and no page of this kind, so it is left alone; give another place")
    folder = pictures_folder(page)
    if os.path.lexists(folder) and (folder.is_symlink() or not folder.is_dir() or not all(map(is_page_picture, folder.iterdir()))):
        raise UserError(f"{folder}: holds something else than the pictures of {page.name}, so it is left alone; give another place")


@dataclass(frozen=True)
class _Writer:
    """Brings one image onto the page."""

    page: Path
    folder: Path
    """Where pictures are written now."""
    folder_name: str
    """What that folder will be called."""
    number: int

    def describe(self, image: Compared) -> dict[str, Any]:
        """What the page has to know."""
        said: dict[str, Any] = {"name": printable(image.name), "notes": {printable(k): printable(v) for k, v in image.notes.items()}}
        if not image.outputs:
            raise UserError(f"{image.name}: there is no output to compare with")
        try:
            outputs = {printable(name): self._output(output, k) for k, (name, output) in enumerate(image.outputs.items())}
        except _TooLarge as error:
            return {**said, "pictures": {}, "problem": printable(str(error))}
        _, height, width = next(iter(outputs.values()))
        before = image.before if isinstance(image.before, Picture) else read_picture(image.before)
        url = self._write(_resized(before, height, width), "input")
        whole = _shape(next(iter(image.outputs.values())))
        sizes = f"{_size(before.size)} → {_size(whole)}" + ("" if whole == (height, width) else f", shown at {_size((height, width))}")
        shown = {INPUT: url, **{name: url for name, (url, _, _) in outputs.items()}}
        return {**said, "pictures": shown, "size": sizes, "ratio": width / height, "problem": ""}

    def _output(self, output: Path | Picture, number: int) -> tuple[str, int, int]:
        """(URL, height, width) as shown."""
        height, width = _shape(output)
        factor = (LARGEST / (height * width)) ** 0.5
        if isinstance(output, Path) and factor >= 1 and output.suffix.lower() in BROWSERS_SHOW and (url := self._relative(output)):
            return url, height, width
        picture = output if isinstance(output, Picture) else read_picture(output)
        if factor < 1:
            height, width = max(1, int(height * factor)), max(1, int(width * factor))
        return self._write(_resized(picture, height, width), str(number)), height, width

    def _relative(self, path: Path) -> str:
        """The URL of a file below the page's folder; empty for others, which may not be there where the page is looked at."""
        try:
            below = path.resolve().relative_to(self.page.parent.resolve())
        except ValueError:
            return ""
        return quote(os.fsencode(below.as_posix()))

    def _write(self, picture: Picture, label: str) -> str:
        name = f"{self.number:04d}_{label}.png"
        write_picture(self.folder / name, picture)
        return f"{quote(os.fsencode(self.folder_name))}/{name}"


class _TooLarge(Exception):
    """An output that is not decoded for a page."""


def _shape(image: Path | Picture) -> tuple[int, int]:
    """(height, width). Raises _TooLarge for what read_picture does not decode."""
    from PIL import Image

    if isinstance(image, Picture):
        return image.size
    try:
        with any_size(), Image.open(image) as opened:  # the header only
            height, width = opened.height, opened.width
    except (SyntaxError, *DAMAGED_FILE) as error:
        raise ImageError(f"{image}: unreadable, truncated or not an image") from error
    if height * width > MAX_PIXELS:
        raise _TooLarge(f"{width} × {height} pixels are too many for a page; look at {image.name} in an image viewer")
    return height, width


def _size(shape: tuple[int, int]) -> str:
    return f"{shape[1]} × {shape[0]}"


def _resized(picture: Picture, height: int, width: int) -> Picture:
    """8 bits a channel at another size, bicubic; smoothed before it is made smaller."""
    from PIL import Image

    def resized(plane: np.ndarray) -> np.ndarray:
        eight = plane if plane.dtype == np.uint8 else np.rint(plane * (255 / LEVELS[plane.dtype])).astype(np.uint8)
        if eight.shape == (height, width):
            return eight
        return np.asarray(Image.fromarray(eight).resize((width, height), Image.Resampling.BICUBIC))

    planes = [resized(np.ascontiguousarray(picture.pixels[..., k])) for k in range(picture.pixels.shape[2])]
    alpha = None if picture.alpha is None else resized(picture.alpha)
    return replace(picture, pixels=np.stack(planes, 2), alpha=alpha)


def _render(images: list[dict[str, Any]], title: str) -> bytes:
    """The page. Every name is escaped, by the template or for a script."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    titles = list(dict.fromkeys(name for image in images for name in image["pictures"]))
    parts = {name: Markup((TEMPLATES / name).read_text(encoding="utf-8")) for name in ("compare.css", "compare.js")}  # noqa: S704 (our own files)
    data = [{"pictures": image["pictures"], "notes": image["notes"]} for image in images]
    script = json.dumps(data).replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
    html = environment.get_template("compare.html.j2").render(
        title=printable(title),
        generator=Markup(GENERATOR.decode()),  # noqa: S704 (our own)
        css=parts["compare.css"],
        script=parts["compare.js"],
        images=images,
        titles=titles,
        data=Markup(script),  # noqa: S704 (escaped for a script)
    )
    return html.encode()
