import base64

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sr_iqa.data.blocks import BLOCK, parts, split
from sr_iqa.data.codecs import CODECS, TILE, find_codec
from sr_iqa.errors import UsageError

from .helpers import picture

GOLDEN = "IgAAAHgBEvz/35iBwZiBwZiBwZiBAaD3DCgAIEEGFAAYAJS2A9w="
SIDES = st.one_of(st.integers(1, 3), st.integers(TILE - 1, TILE + 1), st.integers(1, 3 * TILE))


@st.composite
def images_and_boxes(draw):
    """(image of noise, of smooth structures or of one colour; y, x, h, w of a box in it, perhaps empty)."""
    h, w, kind = draw(SIDES), draw(SIDES), draw(st.sampled_from(["noise", "picture", "flat"]))
    if kind == "noise":
        image = np.random.default_rng(draw(st.integers(0, 99))).integers(0, 256, (h, w, 3), np.uint8)
    elif kind == "picture":
        image = cv2.resize(picture(64, draw(st.integers(0, 9))), (w, h))
    else:
        image = np.full((h, w, 3), draw(st.tuples(*3 * [st.integers(0, 255)])), np.uint8)
    (y, bottom), (x, right) = (sorted(draw(st.tuples(st.integers(0, side), st.integers(0, side)))) for side in (h, w))
    return image, (y, x, bottom - y, right - x)


def crop_of(codec, stored, size, block, box):
    out = np.full((*box[2:], 3), 77, np.uint8)
    for part in parts(size, block, *box):
        out[part.place] = codec.decode(stored[part.number], part.size, *part.inside)
    return out


@settings(max_examples=150, deadline=None)
@given(images_and_boxes(), st.sampled_from(sorted(CODECS)), st.sampled_from([BLOCK, (64, 64), (40, 100), (1000, 1000)]))
def test_every_crop_is_the_slice_of_the_image(image_and_box, name, block):
    (image, (y, x, h, w)), codec = image_and_box, CODECS[name]
    stored = [codec.encode(part) for part in split(image, block)]
    size = image.shape[:2]
    assert np.array_equal(crop_of(codec, stored, size, block, (0, 0, *size)), image)
    assert np.array_equal(crop_of(codec, stored, size, block, (y, x, h, w)), image[y : y + h, x : x + w])


@settings(max_examples=100, deadline=None)
@given(images_and_boxes(), st.tuples(st.integers(1, 80), st.integers(1, 80)))
def test_parts_cover_a_box_once(image_and_box, block):
    image, box = image_and_box
    count, pieces = np.zeros(box[2:], int), split(image, block)
    for part in parts(image.shape[:2], block, *box):
        assert pieces[part.number].shape[:2] == part.size
        count[part.place] += 1
    assert (count == 1).all()


def test_views_that_are_not_contiguous_are_encoded_too():
    image = picture(100)[::-1, ::2]
    for codec in CODECS.values():
        assert np.array_equal(codec.decode(codec.encode(image), (100, 50), slice(0, 100), slice(0, 50)), image)


def test_stores_of_today_are_read_tomorrow():
    """The bytes of a 3x5 ramp as `deflate` stores them; they may be written differently, but not read differently."""
    stored = base64.b64decode(GOLDEN)
    image = (17 * np.arange(45) % 256).astype(np.uint8).reshape(3, 5, 3)
    assert np.array_equal(CODECS["deflate"].decode(stored, (3, 5), slice(0, 3), slice(0, 5)), image)
    assert CODECS["raw"].encode(image) == image.tobytes()


def test_a_changed_byte_of_a_compressed_block_never_gives_other_pixels():
    codec, image = CODECS["deflate"], picture(70)[:, :50]
    stored = codec.encode(image)
    refused = 0
    for place in range(0, len(stored), 7):
        changed = bytearray(stored)
        changed[place] ^= 0x10
        try:
            assert np.array_equal(codec.decode(bytes(changed), (70, 50), slice(0, 70), slice(0, 50)), image)
        except ValueError:
            refused += 1
    assert refused > 0.95 * len(stored) / 7


@pytest.mark.parametrize("name", CODECS)
def test_cut_blocks_are_refused(name):
    stored = CODECS[name].encode(picture(64))
    for length in (0, 1, len(stored) // 2, len(stored) - 1):
        with pytest.raises(ValueError):
            CODECS[name].decode(stored[:length], (64, 64), slice(0, 64), slice(0, 64))


@pytest.mark.parametrize("blur, limit", [(0, 1.2), (0.7, 0.9)])
def test_deflate_is_as_small_as_png(blur, limit):
    """Smaller for photos and smooth pictures; at worst, for noise that differs from channel to channel, not much larger."""
    image = cv2.GaussianBlur(picture(256), (0, 0), blur) if blur else picture(256)
    assert len(CODECS["deflate"].encode(image)) < limit * len(cv2.imencode(".png", image)[1])


def test_unknown_codecs_are_refused_with_the_choices():
    with pytest.raises(UsageError, match=r"'zip' is unknown; choose one of raw, deflate"):
        find_codec("zip")
