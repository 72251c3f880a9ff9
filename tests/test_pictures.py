"""Pictures in and out: what a file holds comes back, and what a format cannot hold is refused."""

import io
import struct
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image, ImageCms, ImageOps

from sr_iqa.images import ImageError
from sr_iqa.inference.pictures import Picture, join_bands, read_picture, write_bands, write_picture
from sr_iqa.inference.rows import _strips
from tests.helpers import picture

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def gray_profile():
    """A gray ICC profile is an RGB one with another colour space in its header, as far as readers of files look."""
    return SRGB[:16] + b"GRAY" + SRGB[20:]


def made(bits=8, channels=3, alpha=False, height=31, width=40):
    levels = picture(max(height, width))[:height, :width, :channels]
    if bits == 16:
        levels = levels.astype(np.uint16) * 257 + np.arange(width, dtype=np.uint16)[:, None] % 7
    levels = np.ascontiguousarray(levels)
    mask = levels[::-1, :, 0].copy() if alpha else None
    return Picture(levels, mask, SRGB if channels == 3 else gray_profile(), None, (300.0, 150.0))


def same(one, two):
    pixels = one.pixels.dtype == two.pixels.dtype and np.array_equal(one.pixels, two.pixels)
    alphas = (one.alpha is None) == (two.alpha is None) and (one.alpha is None or np.array_equal(one.alpha, two.alpha))
    return pixels and alphas


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("alpha", [False, True])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("bits", [8, 16])
def test_what_is_written_is_read(tmp_path, suffix, alpha, channels, bits):
    if (suffix, alpha, channels, bits) == (".tif", True, 1, 16):
        pytest.skip("neither Pillow nor OpenCV reads it")
    before = made(bits, channels, alpha)
    write_picture(tmp_path / f"a{suffix}", before)
    after = read_picture(tmp_path / f"a{suffix}")
    assert same(before, after) and after.icc == before.icc and after.dpi == pytest.approx((300, 150), rel=1e-4)
    assert [path.name for path in tmp_path.iterdir()] == [f"a{suffix}"]


def test_other_programs_read_our_files(tmp_path):
    import tifffile

    deep = made(16, 3, True, height=300)
    for suffix in (".png", ".tif"):
        write_picture(tmp_path / f"a{suffix}", deep)
        found = cv2.imread(str(tmp_path / f"a{suffix}"), cv2.IMREAD_UNCHANGED)
        np.testing.assert_array_equal(found[..., [2, 1, 0, 3]], np.dstack([deep.pixels, deep.alpha]))
    gray = made(16, 1, True)
    write_picture(tmp_path / "gray.tif", gray)
    with tifffile.TiffFile(tmp_path / "gray.tif") as file:
        tags = file.pages[0].tags
        assert tags["ExtraSamples"].value == (2,) and tags["BitsPerSample"].value == (16, 16) and tags["Predictor"].value == 2
        assert tags["InterColorProfile"].value == gray.icc and tags["XResolution"].value == (300000, 1000)


def test_large_tiffs_have_large_offsets(tmp_path, monkeypatch):
    """BigTIFF, as for 4 GB, at a small size."""
    import tifffile

    import sr_iqa.inference.rows as rows

    monkeypatch.setattr(rows, "BIG", 1000)
    monkeypatch.setattr(rows, "STRIP_BYTES", 500)
    before = made(16)
    write_picture(tmp_path / "a.tif", before)
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        assert file.is_bigtiff and len(file.pages[0].dataoffsets) > 10
    assert same(before, read_picture(tmp_path / "a.tif"))


def bands(whole, cuts):
    edges = [0, *cuts, len(whole.pixels)]
    for top, bottom in zip(edges, edges[1:], strict=False):
        mask = None if whole.alpha is None else whole.alpha[top:bottom]
        yield Picture(whole.pixels[top:bottom], mask, whole.icc, whole.exif, whole.dpi)


@pytest.mark.parametrize("suffix", [".png", ".tif", ".webp", ".jpg"])
def test_bands_make_the_file_of_the_whole(tmp_path, suffix):
    whole = made(alpha=suffix != ".jpg")
    write_picture(tmp_path / f"whole{suffix}", whole)
    for cuts in ([1], [3, 4, 20], list(range(1, 31))):
        write_bands(tmp_path / f"bands{suffix}", whole.size, bands(whole, cuts))
        assert (tmp_path / f"bands{suffix}").read_bytes() == (tmp_path / f"whole{suffix}").read_bytes()
        assert same(join_bands(whole.size, bands(whole, cuts)), whole)


@pytest.mark.parametrize("rows", [1, 2, 5, 8, 50])
def test_strips_are_full_and_nothing_is_lost(rows):
    whole = np.arange(37)[:, None, None]
    for cuts in ([37], [1] * 37, [3, 4, 10, 20], [20, 17]):
        strips = list(_strips(iter(np.split(whole, np.cumsum(cuts)[:-1])), rows))
        assert np.array_equal(np.concatenate(strips), whole) and all(len(strip) == rows for strip in strips[:-1])


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif"])
def test_rotation_is_applied_as_viewers_do_and_not_kept(tmp_path, suffix, orientation):
    exif = Image.Exif()
    exif[274] = orientation
    source = tmp_path / f"a{suffix}"
    Image.fromarray(picture(24)[:16]).save(source, exif=exif, dpi=(300, 150), **({"lossless": True} if suffix == ".webp" else {}))
    with Image.open(source) as image:
        expected = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    found = read_picture(source)
    assert np.abs(found.pixels.astype(int) - expected).max() <= (3 if suffix == ".jpg" else 0)  # two decoders of JPEG
    if suffix != ".webp":
        turned = orientation >= 5
        assert found.dpi == pytest.approx((150, 300) if turned else (300, 150), rel=1e-3)
    for out in (".png", ".jpg", ".tif"):
        write_picture(tmp_path / f"out{out}", found)
        with Image.open(tmp_path / f"out{out}") as image:
            assert image.getexif().get(274, 1) == 1 and image.size == expected.shape[1::-1]


def turned(array, orientation):
    """What a viewer shows of a file with this tag."""
    array = array.swapaxes(0, 1) if orientation >= 5 else array
    return array[:: -1 if orientation in (3, 4, 7, 8) else 1, :: -1 if orientation in (2, 3, 6, 7) else 1]


@pytest.mark.parametrize("packed", [None, "tiff_lzw", "tiff_adobe_deflate"])
@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_tiffs_of_every_mode_are_turned(tmp_path, mode, orientation, packed):
    image = Image.fromarray(picture(24)[:16])
    image = Image.fromarray(np.arange(384, dtype=np.uint16).reshape(16, 24) * 99) if mode == "I;16" else image.convert(mode)
    image.save(tmp_path / "a.tif", tiffinfo={274: orientation}, compression=packed)
    colours = image if mode in ("L", "LA", "RGBA", "I;16") else image.convert("L" if mode == "1" else "RGB")
    expected = turned(np.atleast_3d(np.asarray(colours)), orientation)
    found = read_picture(tmp_path / "a.tif")
    planes = found.pixels if found.alpha is None else np.dstack([found.pixels, found.alpha])
    np.testing.assert_array_equal(planes, expected)


@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize("bits", [8, 16])
def test_tiffs_as_other_programs_write_them(tmp_path, bits, orientation):
    """Each with the same picture in it."""
    import tifffile

    dtype, white = np.dtype(f"u{bits // 8}"), 2**bits - 1
    rgb = picture(24)[:16].astype(dtype) * (white // 255)
    alpha = np.tile(np.linspace(0, white, 24).astype(dtype), (16, 1))
    multiplied = (rgb * (alpha[..., None] / white)).round().astype(dtype)
    tag = [(274, "H", 1, orientation, True)]
    for name, levels, options in (
        ("white.tif", white - rgb[..., 0], {"photometric": "miniswhite"}),
        ("black.tif", rgb[..., 0], {"photometric": "minisblack"}),
        ("big.tif", rgb.astype(dtype.newbyteorder(">")), {"photometric": "rgb", "byteorder": ">"}),
        ("alpha.tif", np.dstack([rgb, alpha]), {"photometric": "rgb", "extrasamples": [2]}),
        ("multiplied.tif", np.dstack([multiplied, alpha]), {"photometric": "rgb", "extrasamples": [1]}),
    ):
        tifffile.imwrite(tmp_path / name, levels, extratags=tag, **options)
        found = read_picture(tmp_path / name)
        expected = turned(rgb if found.pixels.shape[2] == 3 else rgb[..., :1], orientation)
        assert found.pixels.dtype == dtype and (found.alpha is None) == (name not in ("alpha.tif", "multiplied.tif"))
        if found.alpha is not None:
            np.testing.assert_array_equal(found.alpha, turned(alpha, orientation))
        if name == "multiplied.tif":  # where it is opaque enough for the rounding to say something
            seen = turned(alpha, orientation) > white // 2
            assert np.abs(found.pixels.astype(int) - expected)[seen].max() <= 2
        else:
            np.testing.assert_array_equal(found.pixels, expected)
    tifffile.imwrite(tmp_path / "planes.tif", np.moveaxis(rgb, -1, 0), photometric="rgb", planarconfig="separate")
    if bits == 8:
        np.testing.assert_array_equal(read_picture(tmp_path / "planes.tif").pixels, rgb)
    else:
        with pytest.raises(ImageError, match=r"planes.tif: this kind \(TIFF, 16 bits, each channel by itself\) is not supported"):
            read_picture(tmp_path / "planes.tif")


def test_what_is_intact_and_not_supported_is_not_called_truncated(tmp_path):
    import tifffile

    rgb = picture(24)[:16]
    lab = ImageCms.buildTransform(ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB")
    ImageCms.applyTransform(Image.fromarray(rgb), lab).save(tmp_path / "lab.tif")
    write_picture(tmp_path / "gray alpha.tif", made(16, 1, True))
    Image.fromarray(rgb).save(tmp_path / "a.tga")
    tifffile.imwrite(tmp_path / "half.tif", rgb.astype(np.float16), photometric="rgb")
    tifffile.imwrite(tmp_path / "six.tif", np.dstack([rgb, rgb]).astype(np.uint16), photometric="rgb", extrasamples=[0] * 3)
    tifffile.imwrite(tmp_path / "large.tif", rgb.astype(np.float16), photometric="rgb", bigtiff=True)
    for name, words in (
        ("lab.tif", "TIFF, L.a.b. colours"),
        ("gray alpha.tif", "TIFF, 2 channels of 16 bits"),
        ("a.tga", "TGA, RGB"),
        ("half.tif", "TIFF, 3 float channels of 16 bits"),
        ("large.tif", "TIFF, 3 float channels of 16 bits"),
        ("six.tif", "TIFF, 6 channels of 16 bits"),
    ):
        with pytest.raises(ImageError, match=rf"{name}: this kind \({words}\) is not supported; convert it"):
            read_picture(tmp_path / name)


def png(*chunks):
    """A file of (name, content)."""
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    )


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_a_transparent_level_counts_in_the_files_own_levels(tmp_path, bits):
    levels = np.arange(32).reshape(4, 8) % 2**bits
    packed = np.packbits(np.unpackbits(levels.astype(np.uint8)[..., None], axis=2)[..., -bits:].reshape(4, -1), axis=1)
    rows = b"".join(b"\0" + row.tobytes() for row in packed)
    head = struct.pack(">IIBBBBB", 8, 4, bits, 0, 0, 0, 0)
    chunks = ((b"IHDR", head), (b"tRNS", struct.pack(">H", 1)), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    (tmp_path / "a.png").write_bytes(png(*chunks))
    found = read_picture(tmp_path / "a.png")
    np.testing.assert_array_equal(found.pixels[..., 0], levels * (255 // (2**bits - 1)))
    np.testing.assert_array_equal(found.alpha, np.where(levels == 1, 0, 255))


def test_something_behind_a_pngs_end_is_no_damage_and_its_name_elsewhere_no_end(tmp_path):
    write_picture(tmp_path / "a.png", made())
    whole = (tmp_path / "a.png").read_bytes()
    (tmp_path / "long.png").write_bytes(whole + bytes(5000))
    assert same(read_picture(tmp_path / "long.png"), made())
    (tmp_path / "cut.png").write_bytes(whole[:33] + png((b"tEXt", b"a\0IEND"))[8:] + whole[33:-200])
    with pytest.raises(ImageError, match="truncated"):
        read_picture(tmp_path / "cut.png")


def test_reading_leaves_pillows_limit_as_it_was(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1234)
    write_picture(tmp_path / "a.png", made())
    read_picture(tmp_path / "a.png")
    with pytest.raises(ImageError):
        read_picture(tmp_path / "none.png")
    assert Image.MAX_IMAGE_PIXELS == 1234


def test_webp_has_no_gray_and_no_gray_profile(tmp_path):
    for channels, kept in ((1, None), (3, SRGB)):
        write_picture(tmp_path / "a.webp", made(channels=channels))
        found = read_picture(tmp_path / "a.webp")
        assert found.pixels.shape[2] == 3 and found.icc == kept


def photo_exif():
    exif = Image.Exif()
    exif[271], exif[315], exif[274] = "Maker", "Somebody", 6
    exif.get_ifd(0x8769).update({36867: "2020:01:02 03:04:05", 40962: 24, 37500: b"secret offsets"})
    exif.get_ifd(0x8825).update({1: "N", 2: (52.0, 30.0, 0.0)})
    return exif


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp"])
def test_what_the_camera_noted_is_kept(tmp_path, suffix):
    Image.fromarray(picture(24)).save(tmp_path / "a.jpg", exif=photo_exif(), icc_profile=SRGB)
    write_picture(tmp_path / f"out{suffix}", read_picture(tmp_path / "a.jpg"))
    with Image.open(tmp_path / f"out{suffix}") as image:
        found = image.getexif()
        assert found[271] == "Maker" and found[315] == "Somebody" and 274 not in found
        assert found.get_ifd(0x8769) == {36867: "2020:01:02 03:04:05"} and found.get_ifd(0x8825)[1] == "N"
        assert image.info["icc_profile"] == SRGB


def test_exif_behind_the_pixels_of_a_png_counts(tmp_path):
    stream = io.BytesIO()
    Image.fromarray(picture(24)[:16]).save(stream, "PNG")
    exif = photo_exif().tobytes()[6:]
    chunk = struct.pack(">I", len(exif)) + b"eXIf" + exif + struct.pack(">I", zlib.crc32(b"eXIf" + exif))
    (tmp_path / "a.png").write_bytes(stream.getvalue()[:-12] + chunk + stream.getvalue()[-12:])
    assert read_picture(tmp_path / "a.png").size == (24, 16)


def test_unusual_kinds(tmp_path):
    rgb = picture(24)
    image = Image.fromarray(rgb)
    image.quantize(16).save(tmp_path / "palette.png")
    np.testing.assert_array_equal(read_picture(tmp_path / "palette.png").pixels, np.asarray(image.quantize(16).convert("RGB")))
    image.quantize(16).save(tmp_path / "clear.png", transparency=3)
    np.testing.assert_array_equal(read_picture(tmp_path / "clear.png").alpha == 0, np.asarray(image.quantize(16)) == 3)
    image.convert("L").save(tmp_path / "gray.png", transparency=int(rgb[0, 0] @ (299, 587, 114) // 1000))
    assert read_picture(tmp_path / "gray.png").pixels.shape == (24, 24, 1) and read_picture(tmp_path / "gray.png").alpha is not None
    image.convert("1").save(tmp_path / "bits.png")
    assert set(np.unique(read_picture(tmp_path / "bits.png").pixels)) == {0, 255}
    image.convert("CMYK").save(tmp_path / "cmyk.jpg", quality=100)
    assert np.abs(read_picture(tmp_path / "cmyk.jpg").pixels.astype(int) - rgb).mean() < 4


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("absent.png", None, "cannot be read .No such file"),
        ("empty.png", b"", "not an image"),
        ("text.jpg", b"no image at all", "not an image"),
        ("cut.png", "png", "truncated"),
        ("cut.tif", "tif", "truncated"),
        ("float.tif", np.zeros((8, 8), np.float32), "float32 values; convert it to 8 or 16 bits"),
    ],
)
def test_bad_files_are_refused_by_name(tmp_path, name, content, words):
    path = tmp_path / name
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif isinstance(content, str):
        write_picture(tmp_path / f"whole.{content}", made())
        data = (tmp_path / f"whole.{content}").read_bytes()
        path.write_bytes(data[: len(data) // 2])
    elif content is not None:
        cv2.imwrite(str(path), content)
    with pytest.raises(ImageError, match=rf"{name}: .*{words}"):
        read_picture(path)


def test_bombs_and_books_are_refused(tmp_path):
    head = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    ihdr = struct.pack(">I", 13) + b"IHDR" + head + struct.pack(">I", zlib.crc32(b"IHDR" + head))
    (tmp_path / "bomb.png").write_bytes(
        b"\x89PNG\r\n\x1a\n" + ihdr + struct.pack(">I", 0) + b"IDAT" + struct.pack(">I", zlib.crc32(b"IDAT"))
    )
    with pytest.raises(ImageError, match=r"bomb.png: 60000x60000 pixels are 3600 million, the limit is 250; raise --max-pixels"):
        read_picture(tmp_path / "bomb.png")
    write_picture(tmp_path / "a.png", made())
    with pytest.raises(ImageError, match="--max-pixels"):
        read_picture(tmp_path / "a.png", max_pixels=31 * 40 - 1)
    frames = [Image.fromarray(picture(8, seed)) for seed in (0, 1)]
    for name in ("book.tif", "film.webp", "film.png"):
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:])
        with pytest.raises(ImageError, match="2 pages or frames"):
            read_picture(tmp_path / name)


def test_what_a_format_cannot_hold_is_refused_and_nothing_is_left(tmp_path):
    with pytest.raises(ImageError, match="transparency, which JPEG cannot hold"):
        write_picture(tmp_path / "a.jpg", made(alpha=True))
    with pytest.raises(ImageError, match="16383 a side"):
        write_picture(tmp_path / "a.webp", Picture(np.zeros((2, 16384, 3), np.uint8)))
    with pytest.raises(ImageError, match="is not written; choose one of"):
        write_picture(tmp_path / "a.gif", made())

    def breaks():
        yield Picture(np.zeros((2, 8, 3), np.uint8))
        raise RuntimeError

    for suffix in (".png", ".tif", ".jpg"):
        with pytest.raises(RuntimeError):
            write_bands(tmp_path / f"a{suffix}", (8, 8), breaks())
    assert not list(tmp_path.iterdir())


def test_16_bits_become_8_where_they_must(tmp_path):
    levels = np.array([0, 128, 129, 32767, 65406, 65407, 65535], np.uint16).repeat(4).reshape(1, -1, 1).repeat(3, 2)
    write_picture(tmp_path / "a.jpg", Picture(levels), quality=100)
    found = read_picture(tmp_path / "a.jpg").pixels
    assert found.dtype == np.uint8 and np.abs(found.astype(float) - levels / 257).max() <= 2
