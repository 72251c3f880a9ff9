import cv2
import numpy as np
import pytest
import torch

from sr_iqa.config.degradation import DegradationOptions
from sr_iqa.images import (
    ImageError,
    image_size,
    jpeg_roundtrip,
    list_images,
    read_image,
    read_image_lenient,
    to_tensor,
    to_uint8,
    write_png,
)

from .helpers import picture


def test_png_round_trip_keeps_rgb_order(tmp_path):
    image = picture(32)[:24]
    write_png(tmp_path / "a" / "x.png", image)
    assert np.array_equal(read_image(tmp_path / "a" / "x.png"), image)
    assert image_size(tmp_path / "a" / "x.png") == (24, 32)
    assert np.array_equal(cv2.imread(str(tmp_path / "a" / "x.png"))[..., ::-1], image)
    assert [p.name for p in (tmp_path / "a").iterdir()] == ["x.png"]


def damaged(tmp_path):
    image = picture(32)
    good = cv2.imencode(".png", image)[1].tobytes()
    jpeg = cv2.imencode(".jpg", image)[1].tobytes()
    flipped = bytearray(good)
    flipped[len(good) // 2] ^= 0xFF
    return {
        "cut.png": good[: len(good) // 2],
        "cut_end.png": good[:-14],
        "cut.jpg": jpeg[: len(jpeg) // 2],
        "flipped.png": bytes(flipped),
        "empty.png": b"",
        "text.png": b"this is no image",
    }


@pytest.mark.parametrize("name", ["cut.png", "cut_end.png", "cut.jpg", "flipped.png", "empty.png", "text.png", "missing.png"])
def test_unreadable_files_are_named(tmp_path, name):
    if name != "missing.png":
        (tmp_path / name).write_bytes(damaged(tmp_path)[name])
    for read in (read_image, read_image_lenient):
        with pytest.raises(ImageError, match=name):
            read(tmp_path / name)


def test_gray_alpha_and_16_bit_are_refused_but_read_leniently(tmp_path):
    image = picture(16)
    cases = {
        "gray": (image[..., 0], "gray"),
        "alpha": (np.dstack([image, image[..., 0]]), "alpha"),
        "deep": (image.astype(np.uint16) * 257, "16-bit"),
    }
    for name, (pixels, word) in cases.items():
        path = tmp_path / f"{name}.png"
        cv2.imwrite(str(path), pixels)
        with pytest.raises(ImageError, match=f"{name}.png.*{word}"):
            read_image(path)
        lenient = read_image_lenient(path)
        assert lenient.shape == (16, 16, 3) and lenient.dtype == np.uint8
        expected = np.repeat(image[..., :1], 3, 2) if name == "gray" else image[..., ::-1]
        assert np.array_equal(lenient, expected)


def test_tensors_round_trip_and_round_to_nearest():
    images = np.stack([picture(8, seed) for seed in range(3)])
    tensor = to_tensor(images)
    assert tensor.shape == (3, 3, 8, 8) and tensor.dtype == torch.float32 and float(tensor.max()) <= 1
    assert np.array_equal(to_uint8(tensor), images)
    assert np.array_equal(to_uint8(tensor[0]), images[0])
    assert to_uint8(torch.tensor([-0.5, 1.7, 100.6 / 255]).view(3, 1, 1)).ravel().tolist() == [0, 255, 101]


def test_jpeg_keeps_colours_apart():
    red = np.zeros((32, 32, 3), np.uint8)
    red[..., 0] = 250
    out = jpeg_roundtrip(red, 90).astype(int)
    assert np.abs(out - red).max() < 6


def test_listing_is_sorted_and_skips_other_files(tmp_path):
    for name in ("b.png", "a.JPG", "c.txt", ".tmp-x.png"):
        (tmp_path / name).write_bytes(b"")
    assert [p.name for p in list_images(tmp_path)] == ["a.JPG", "b.png"]


def test_degradation_presets_can_be_overridden_down_to_one_number():
    hggt = DegradationOptions.model_validate({"preset": "hggt"})
    assert hggt.second is None and hggt.first.blur.sigma_range == (0.1, 1.0) and hggt.first.jpeg_range == (75, 95)
    mild = DegradationOptions.model_validate({"preset": "realesrgan", "second": {"jpeg_range": [80, 90], "blur": {"kernels": {"iso": 1}}}})
    assert mild.second.jpeg_range == (80, 90) and mild.second.blur.kernels == {"iso": 1} and mild.second.blur.prob == 0.8
    assert mild.first == DegradationOptions.model_validate({"preset": "realesrgan"}).first
    assert DegradationOptions.model_validate(mild.model_dump()) == mild
    plain = DegradationOptions()
    assert plain.first is None and plain.final.modes == ("antialiased",)
    one_part = DegradationOptions.model_validate(
        {"first": {"blur": None, "resize": None, "noise": {"gaussian_prob": 1}, "jpeg_range": None}}
    )
    assert one_part.first.blur is None and one_part.first.noise.gaussian_prob == 1 and one_part.first.noise.gray_prob == 0.4


@pytest.mark.parametrize(
    "given, words",
    [
        ({"preset": "hggt", "first": {"blur": {"kernel_size_range": [2, 9]}}}, "odd"),
        ({"preset": "hggt", "first": {"noise": {"sigma_range": [9, 2]}}}, "above the upper"),
        ({"preset": "hggt", "first": {"resize": {"scale_range": [1.1, 1.2]}}}, "contain 1"),
        ({"preset": "hggt", "first": {"resize": {"prob": [0, 0, 0]}}}, "frequencies"),
        ({"preset": "hggt", "first": {"jpg_range": [70, 80]}}, "jpg_range"),
        ({"preset": "bsrgan"}, "realesrgan"),
    ],
)
def test_wrong_degradation_options_are_refused(given, words):
    with pytest.raises(ValueError, match=words):
        DegradationOptions.model_validate(given)
