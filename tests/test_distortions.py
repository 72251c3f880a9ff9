"""Distortions of known order, and the synthetic manifests that they make."""

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from sr_iqa.cli import app
from sr_iqa.data.distortions import DISTORTIONS, KADID, LEVELS, SUPER_RESOLUTION, distort, sharpen
from sr_iqa.errors import UsageError, UserError
from sr_iqa.images import read_image
from sr_iqa.lab.synthetic import Synthetic, make_synthetic, parse_kinds, parse_levels
from sr_iqa.preferences.manifest import read_manifest
from tests.helpers import picture, save

FEW = {"displaced_patches", "colour_blocks"}
"""Their patches fall anywhere: more of them need not be further from the photo."""


@pytest.fixture(scope="module")
def photo():
    return cv2.GaussianBlur(picture(128, seed=3)[:96].astype(np.float32) / 255, (0, 0), 0.7)


def rng():
    return np.random.default_rng(1)


def error(image, photo):
    return float(np.square(image - photo).mean())


def test_kadid_has_25_kinds_of_five_levels():
    assert len(KADID) == 25 and not KADID.keys() & SUPER_RESOLUTION.keys()
    assert all(len(strengths) == LEVELS for _, strengths in DISTORTIONS.values())


@pytest.mark.parametrize("kind", DISTORTIONS)
def test_every_level_changes_the_photo_within_its_range_and_repeats(kind, photo):
    before = photo.copy()
    for level in range(1, LEVELS + 1):
        image = distort(photo, kind, level, rng())
        assert image.shape == photo.shape and image.dtype == np.float32 and image.min() >= 0 and image.max() <= 1
        assert error(image, photo) > 1e-7
        np.testing.assert_array_equal(image, distort(photo, kind, level, rng()))
    np.testing.assert_array_equal(photo, before)
    assert distort(photo, kind, 0, rng()) is photo


@pytest.mark.parametrize("kind", [kind for kind in DISTORTIONS if kind not in FEW | {"ringing"}])
def test_a_stronger_level_is_further_from_the_photo(kind, photo):
    errors = [error(distort(photo, kind, level, rng()), photo) for level in range(1, LEVELS + 1)]
    assert errors == sorted(errors) or kind == "painting" and errors[0] < errors[-1], errors


def test_ringing_is_a_sharpened_photo_with_ever_less_of_its_spectrum(photo):
    whole = np.clip(sharpen(photo, 1.5, rng()), 0, 1)
    errors = [error(distort(photo, "ringing", level, rng()), whole) for level in range(1, LEVELS + 1)]
    assert errors == sorted(errors), errors


def test_known_values(photo):
    flat = np.full((64, 64, 3), 0.5, np.float32)
    assert distort(flat, "white_noise", 5, rng()).std() == pytest.approx(0.1, rel=0.03)  # KADID's variance of 0.01
    assert (distort(flat, "impulse_noise", 5, rng()) != 0.5).mean() == pytest.approx(0.03, rel=0.2)
    gray = distort(photo, "saturation_hsv", 4, rng())
    assert np.ptp(gray, axis=2).max() < 1e-6  # no colour is left
    blocks = distort(photo, "pixelate", 3, rng())
    assert all((blocks[:4, x : x + 4] == blocks[0, x]).all() for x in range(0, 128, 4))
    tile = distort(flat, "checkerboard", 5, rng()) - flat
    np.testing.assert_allclose(tile[:4, :4], tile[8:12, 16:20], atol=1e-6)


# ---------------------------------------------------------------- manifests


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    for k, (h, w) in enumerate(((96, 80), (100, 120), (40, 128))):
        save(folder / f"photo {k}.png", picture(128, seed=k)[:h, :w])
    return folder


def test_of_two_levels_the_fainter_is_better(photos, tmp_path):
    path = make_synthetic(Synthetic(photos, tmp_path, ("white_noise", "jpeg"), (0, 2, 5), crop_px=64))
    manifest = read_manifest(path)
    assert len(manifest.pairs) == 2 * 2 * 3  # the third photo is too low
    assert {pair.content for pair in manifest.pairs} == {"photo 0", "photo 1"}
    assert {pair.group for pair in manifest.pairs} == {"white_noise", "jpeg"}
    for pair in manifest.pairs:
        a, b, original = (read_image(image).astype(float) for image in (pair.img_a, pair.img_b, pair.ref))
        assert pair.p_a == float(error(a, original) < error(b, original))
    assert {pair.p_a for pair in manifest.pairs} == {0.0, 1.0}


def test_an_image_does_not_depend_on_what_else_is_made(photos, tmp_path):
    make_synthetic(Synthetic(photos, tmp_path / "all", ("jitter", "white_noise"), crop_px=64))
    make_synthetic(Synthetic(photos, tmp_path / "one", ("white_noise",), (0, 4), crop_px=64, count=1))
    name = "images/photo 0/white_noise_4.png"
    assert (tmp_path / "all" / name).read_bytes() == (tmp_path / "one" / name).read_bytes()
    assert not (tmp_path / "one" / "images" / "photo 0" / "white_noise_3.png").exists()


def test_mistakes_are_named(photos, tmp_path):
    with pytest.raises(UsageError, match="'jepg' is not a kind of distortion. Did you mean 'jpeg'"):
        make_synthetic(Synthetic(photos, tmp_path, parse_kinds("jepg")))
    with pytest.raises(UsageError, match="at least two levels of 0 to 5, got 6, 7"):
        make_synthetic(Synthetic(photos, tmp_path, levels=parse_levels("6,7")))
    with pytest.raises(UserError, match="no photo of 256 x 256 pixels"):
        make_synthetic(Synthetic(photos, tmp_path))
    with pytest.raises(UsageError, match="--levels: expected numbers"):
        parse_levels("0;1")
    assert parse_kinds(" ") == tuple(DISTORTIONS) and not list(tmp_path.iterdir())


def test_the_command(photos, tmp_path):
    done = CliRunner().invoke(
        app, ["iqa", "distort", str(photos), "-o", str(tmp_path), "--kinds", "jpeg, painting", "--levels", "0,5", "--crop-px", "64"]
    )
    assert done.exit_code == 0 and done.output.strip() == str(tmp_path / "synthetic.csv")
    assert len(read_manifest(tmp_path / "synthetic.csv").pairs) == 4
