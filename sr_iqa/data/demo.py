"""The demo's multi-GT sets, in HGGT layout: photos that dependencies ship (or the user's), enhanced four ways and cut into patches.

Photos are first shrunk to 400 px, which makes them crisp and free of noise, and then enlarged twice: soft originals that an enhancer can
improve, in structures of 2-5 px, coarse enough for a x4 network to learn. Photos, not patches, are split into training and held-out ones.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np

from sr_iqa import __version__
from sr_iqa.errors import UserError
from sr_iqa.images import list_images, read_image_lenient, write_png

from .annotators import ANNOTATORS, measure
from .enhance import ENHANCERS, luma

PHOTO_SIDE_PX = 400
ENLARGE = 2
PATCH_PX = 256
STRIDE_PX = 192
MIN_GRAY_STD = 18.0
MIN_LAPLACIAN_VARIANCE = 10.0
PATCHES_PER_PHOTO = 12
MAX_PHOTOS = 16
HELDOUT_SHARE = 0.25

SHIPPED_PHOTOS = {
    "astronaut": ("skimage", "data/astronaut.png"),
    "chelsea": ("skimage", "data/chelsea.png"),
    "china": ("sklearn", "datasets/images/china.jpg"),
    "coffee": ("skimage", "data/coffee.png"),
    "flower": ("sklearn", "datasets/images/flower.jpg"),
    "grace_hopper": ("matplotlib", "mpl-data/sample_data/grace_hopper.jpg"),
    "motorcycle": ("skimage", "data/motorcycle_left.png"),
    "rocket": ("skimage", "data/rocket.jpg"),
}
"""Colour photos inside the wheels of scikit-image, scikit-learn and matplotlib: name -> (package, file)."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class DemoData:
    """Where the sets are, and what they were made from; saved as demo.json beside them."""

    root: Path
    seed: int
    version: str
    train_photos: tuple[str, ...]
    heldout_photos: tuple[str, ...]
    train_sets: int = 0
    heldout_sets: int = 0
    patches_per_photo: int = PATCHES_PER_PHOTO

    @property
    def train(self) -> Path:
        """Holds images/ and labels/ for training."""
        return self.root / "train"

    @property
    def heldout(self) -> Path:
        """Holds images/ and labels/ for evaluation."""
        return self.root / "heldout"


def make_demo_sets(
    out: Path, images: Path | None = None, seed: int = 0, heldout: Path | None = None, patches_per_photo: int = PATCHES_PER_PHOTO
) -> DemoData:
    """Writes the sets to out/train and out/heldout, each with images/{original,01,...} and labels/{A,B,C}.

    The folder appears complete or not at all; one made by the same call before is kept.

    Args:
        out: the folder to make.
        images: a folder of at least two photos to use instead of the shipped ones.
        seed: which photos are held out, and which MAX_PHOTOS are used where there are more.
        heldout: a folder of other photos to hold out; then all photos of both folders are used.
        patches_per_photo: how many patches a photo gives at most, the most textured ones.

    Raises:
        UserError: too few textured photos, two of one name, or anything else at `out`.
    """
    photos = _user_photos(images) if images else shipped_photos()
    apart = _user_photos(heldout) if heldout else {}
    if shared := sorted(photos.keys() & apart.keys()):
        raise UserError(f"{heldout}: {shared[0]} is among the training photos too: rename it if it is another photo, else take it out")
    photos |= apart
    patches = {name: boxes for name, path in photos.items() if (boxes := textured_patches(load_photo(path), patches_per_photo))}
    held, train = _parts(sorted(patches), apart) if heldout else _split(sorted(patches), seed)
    train_sets, heldout_sets = (sum(len(patches[name]) for name in names) for names in (train, held))
    wanted = DemoData(out, seed, __version__, train, held, train_sets, heldout_sets, patches_per_photo)
    if out.exists():
        return _reuse(wanted)
    partial = out.with_name(out.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    for part, names in (("train", train), ("heldout", held)):
        for name in names:
            write_sets(partial / part, name, load_photo(photos[name]), patches[name])
    (partial / "demo.json").write_text(json.dumps(_record(wanted), indent=2) + "\n")
    partial.replace(out)
    return wanted


def load_photo(path: Path) -> np.ndarray:
    """uint8 RGB photo, shrunk to PHOTO_SIDE_PX where its longer side exceeds that, then enlarged ENLARGE times (bicubic)."""
    photo = read_image_lenient(path)
    shrink = PHOTO_SIDE_PX / max(photo.shape[:2])
    if shrink < 1:
        photo = cv2.resize(photo, None, fx=shrink, fy=shrink, interpolation=cv2.INTER_AREA)
    return cv2.resize(photo, None, fx=ENLARGE, fy=ENLARGE, interpolation=cv2.INTER_CUBIC)


def enlarge_photos(images: Path, out: Path) -> int:
    """Writes every photo of a folder as `load_photo` sees it: the data of the base network's recipe. Returns their number."""
    paths = list_images(images)
    for path in paths:
        write_png(out / f"{path.stem}.png", load_photo(path))
    return len(paths)


def textured_patches(photo: np.ndarray, most: int = PATCHES_PER_PHOTO) -> list[tuple[int, int]]:
    """Top-left corners (x, y) of the `most` most textured patches on an even grid, in reading order.

    HGGT's criteria: standard deviation of the gray values and variance of their Laplacian above thresholds.
    """
    gray = cv2.cvtColor(photo, cv2.COLOR_RGB2GRAY).astype(np.float32)
    found = []
    for y in _grid(gray.shape[0]):
        for x in _grid(gray.shape[1]):
            patch = gray[y : y + PATCH_PX, x : x + PATCH_PX]
            variance = float(cv2.Laplacian(patch, cv2.CV_32F).var())
            if patch.std() >= MIN_GRAY_STD and variance >= MIN_LAPLACIAN_VARIANCE:
                found.append((variance, y, x))
    best = sorted(found, reverse=True)[:most]
    return [(x, y) for _, y, x in sorted(best, key=lambda item: item[1:])]


def write_sets(root: Path, name: str, photo: np.ndarray, boxes: list[tuple[int, int]]) -> None:
    """Enhances one photo and writes its patches `<name>-<x>-<y>.png`, their enhancements and label files under root."""
    original = photo.astype(np.float32) / 255
    versions = {folder: np.rint(255 * enhance(original)).astype(np.uint8) for folder, enhance in ENHANCERS.items()}
    for x, y in boxes:
        box = np.s_[y : y + PATCH_PX, x : x + PATCH_PX]
        patch_name = f"{name}-{x}-{y}"
        write_png(root / "images" / "original" / f"{patch_name}.png", photo[box])
        for folder, version in versions.items():
            write_png(root / "images" / folder / f"{patch_name}_{folder}.png", version[box])
        _write_labels(root / "labels", patch_name, photo[box], {folder: version[box] for folder, version in versions.items()})


def _write_labels(root: Path, patch_name: str, original: np.ndarray, enhanced: dict[str, np.ndarray]) -> None:
    """One HGGT label file per annotator, which names its rule."""
    before = luma(original.astype(np.float32) / 255)
    measures = {folder: measure(before, luma(image.astype(np.float32) / 255)) for folder, image in enhanced.items()}
    for annotator, taste in ANNOTATORS.items():
        pictures = [{"Name": f"{patch_name}.png", "File": "original", "Label": None}]
        pictures += [{"Name": f"{patch_name}_{f}.png", "File": f, "Label": taste.label(m)} for f, m in measures.items()]
        content = {f"Picture_{i}": picture for i, picture in enumerate(pictures, 1)} | {"Annotator": taste.rule}
        path = root / annotator / f"{patch_name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content, indent=1) + "\n")


def shipped_photos() -> dict[str, Path]:
    """Name -> file of the shipped photos; other releases of the packages may ship fewer."""
    photos = {}
    for name, (package, file) in SHIPPED_PHOTOS.items():
        spec = find_spec(package)
        path = Path(spec.origin).parent / file if spec and spec.origin else None
        if path and path.is_file():
            photos[name] = path
        else:
            log.warning("%s: this release of %s does not ship %s; the demo goes on without it", name, package, file)
    return photos


def _user_photos(folder: Path) -> dict[str, Path]:
    photos: dict[str, Path] = {}
    for path in list_images(folder):
        if path.stem in photos:
            raise UserError(f"{path} and {photos[path.stem].name} would share the name {path.stem}: rename one")
        photos[path.stem] = path
    return photos


def _split(names: list[str], seed: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(held-out, training) photos, at most MAX_PHOTOS in all, shuffled by the seed."""
    if len(names) < 2:
        raise UserError(_too_few(f"at least two photos (one to train, one held out), found {len(names)}"))
    shuffled = [names[i] for i in np.random.default_rng(seed).permutation(len(names))][:MAX_PHOTOS]
    heldout = max(1, round(HELDOUT_SHARE * len(shuffled)))
    return tuple(sorted(shuffled[:heldout])), tuple(sorted(shuffled[heldout:]))


def _parts(names: list[str], apart: Mapping[str, Path]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(held-out, training) photos, the former being those in `apart`."""
    held, train = tuple(name for name in names if name in apart), tuple(name for name in names if name not in apart)
    if not held or not train:
        raise UserError(_too_few(f"at least one photo to train and one held out, found {len(train)} and {len(held)}"))
    return held, train


def _too_few(what: str) -> str:
    return f"photos with textured {PATCH_PX // ENLARGE}x{PATCH_PX // ENLARGE} px patches: need {what}; give a folder with more photos"


def _grid(length: int) -> list[int]:
    """Starts of patches, spread evenly over `length` pixels, about STRIDE_PX apart."""
    room = length - PATCH_PX
    return np.linspace(0, room, round(room / STRIDE_PX) + 1).astype(int).tolist() if room >= 0 else []


def _record(data: DemoData) -> dict:
    return {key: value for key, value in asdict(data).items() if key != "root"}


def _reuse(wanted: DemoData) -> DemoData:
    """The sets that an equal call made before."""
    record = wanted.root / "demo.json"
    if record.is_file() and json.loads(record.read_text()) == json.loads(json.dumps(_record(wanted))):
        return wanted
    raise UserError(f"{wanted.root} exists and was not made from these photos with seed {wanted.seed}: delete it or choose another folder")
