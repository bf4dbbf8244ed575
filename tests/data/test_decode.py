"""Decoding: every kind of picture comes out right."""

from __future__ import annotations

import io
import warnings
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageChops, ImageFile, ImageOps

from lesiontk.data.decode import ImageError, decode_image
from tests.data.sample_files import FORMATS, HEIGHT, WIDTH, encode, encode_rgb, exif_of, make_rgb

LOSSLESS: list[tuple[str, dict[str, Any]]] = [
    ("PNG", {}),
    ("PNG", {"bits": 8, "compress_level": 9}),
    ("BMP", {}),
    ("TIFF", {}),
    ("TIFF", {"compression": "tiff_lzw"}),
    ("TIFF", {"compression": "tiff_deflate"}),
    ("WEBP", {"lossless": True}),
]


@pytest.mark.parametrize(("form", "options"), LOSSLESS)
def test_lossless_formats_keep_every_pixel(form: str, options: dict[str, Any]) -> None:
    decoded = decode_image(encode_rgb(form, **options), name="a")
    np.testing.assert_array_equal(decoded, make_rgb())
    assert decoded.dtype == np.uint8
    assert decoded.flags.writeable


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0, "quality": 95}])
def test_jpeg_is_what_the_library_decodes(options: dict[str, Any]) -> None:
    data = encode_rgb("JPEG", exif=exif_of(1), comment="x", **options)
    expected = np.array(Image.open(io.BytesIO(data)))
    np.testing.assert_array_equal(decode_image(data, name="a.jpeg"), expected)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("form", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_every_orientation_comes_out_upright(form: str, orientation: int) -> None:
    options: dict[str, Any] = {"lossless": True} if form == "WEBP" else {}
    data = encode_rgb(form, exif=exif_of(orientation), **options)
    plain = Image.fromarray(decode_image(encode_rgb(form, **options), name="a"))
    plain.getexif()[0x0112] = orientation
    expected = np.array(ImageOps.exif_transpose(plain))
    decoded = decode_image(data, name="a")
    np.testing.assert_array_equal(decoded, expected)
    assert decoded.shape[:2] == ((WIDTH, HEIGHT) if orientation > 4 else (HEIGHT, WIDTH))


@pytest.mark.parametrize("form", ["PNG", "TIFF"])
def test_deep_grey_is_scaled_not_clipped(form: str) -> None:
    deep = (np.arange(HEIGHT * WIDTH, dtype=np.uint32) * 68 % 65536).reshape(HEIGHT, WIDTH)
    deep[0, :4] = (0, 128, 129, 65535)
    decoded = decode_image(encode(Image.fromarray(deep.astype(np.uint16)), form), name="a")
    expected = np.floor(deep * 255 / 65535 + 0.5).astype(np.uint8)
    np.testing.assert_array_equal(decoded, np.repeat(expected[..., None], 3, axis=2))
    assert decoded[0, 0, 0] == 0
    assert decoded[0, 3, 0] == 255


@pytest.mark.parametrize("form", ["JPEG", "PNG", "BMP", "TIFF"])
def test_grey_becomes_three_equal_channels(form: str) -> None:
    grey = Image.fromarray(make_rgb()[..., 0])
    decoded = decode_image(encode(grey, form), name="a")
    assert (decoded == decoded[..., :1]).all()
    assert np.abs(decoded[..., 0].astype(int) - np.array(grey)).max() <= (form == "JPEG") * 8


@pytest.mark.parametrize("form", ["PNG", "BMP", "TIFF"])
@pytest.mark.parametrize("mode", ["1", "P"])
def test_few_colours_become_rgb(form: str, mode: str) -> None:
    image = Image.fromarray(make_rgb()).convert(mode)
    expected = np.array(image.convert("RGB"))
    np.testing.assert_array_equal(decode_image(encode(image, form), name="a"), expected)


@pytest.mark.parametrize("mode", ["LA", "RGBA"])
def test_transparency_is_blended_with_white(mode: str) -> None:
    image = Image.fromarray(make_rgb()).convert(mode)
    alpha = np.tile(np.linspace(0, 255, WIDTH).astype(np.uint8), (HEIGHT, 1))
    image.putalpha(Image.fromarray(alpha))
    opaque = np.array(image.convert("RGBA"))[..., :3].astype(float)
    share = alpha[..., None] / 255
    decoded = decode_image(encode(image, "PNG"), name="a")
    assert np.abs(decoded - (opaque * share + 255 * (1 - share))).max() <= 1
    assert (decoded[:, 0] == 255).all()


def test_transparent_palette_entry_is_white() -> None:
    image = Image.fromarray(make_rgb()).quantize(8)
    decoded = decode_image(encode(image, "PNG", transparency=3), name="a")
    clear = np.array(image) == 3
    assert clear.any()
    assert (decoded[clear] == 255).all()
    np.testing.assert_array_equal(decoded[~clear], np.array(image.convert("RGB"))[~clear])


@pytest.mark.parametrize(("mode", "key"), [("1", 0), ("L", 21), ("RGB", (6, 9, 1)), ("I;16", 771)])
def test_transparent_colour_is_white(mode: str, key: Any) -> None:
    if mode == "I;16":
        image = Image.fromarray(make_rgb()[..., 0].astype(np.uint16) * 257 // 2)
    else:
        image = Image.fromarray(make_rgb()).convert(mode)
    plain = decode_image(encode(image, "PNG"), name="a")
    decoded = decode_image(encode(image, "PNG", transparency=key), name="a")
    pixels = np.array(image).reshape(HEIGHT, WIDTH, -1)
    clear = (pixels == np.array(key)).all(axis=2)
    assert clear.any()
    assert (decoded[clear] == 255).all()
    np.testing.assert_array_equal(decoded[~clear], plain[~clear])


@pytest.mark.parametrize("has_adobe_marker", [True, False])
def test_cmyk_jpeg_follows_its_adobe_marker(has_adobe_marker: bool) -> None:
    cmyk = Image.new("CMYK", (WIDTH, HEIGHT), (0, 200, 40, 16))
    data = encode(cmyk if has_adobe_marker else ImageChops.invert(cmyk), "JPEG", quality=95)
    at = data.index(b"\xff\xee")
    if not has_adobe_marker:
        data = data[:at] + data[at + 2 + int.from_bytes(data[at + 2 : at + 4]) :]
    expected = np.array(cmyk.convert("RGB"))[0, 0].astype(int)
    assert np.abs(decode_image(data, name="a") - expected).max() <= 4


@pytest.mark.parametrize("form", ["TIFF", "WEBP"])
def test_the_first_frame_counts(form: str) -> None:
    options: dict[str, Any] = {"lossless": True} if form == "WEBP" else {}
    more = [Image.new("RGB", (WIDTH, HEIGHT), "blue")]
    data = encode_rgb(form, save_all=True, append_images=more, **options)
    np.testing.assert_array_equal(decode_image(data, name="a"), make_rgb())


def test_a_draft_is_smaller_but_never_below_what_was_asked() -> None:
    data = encode(Image.fromarray(make_rgb(480, 640)), "JPEG")
    assert decode_image(data, name="a", draft_size=200).shape == (240, 320, 3)
    assert decode_image(data, name="a", draft_size=241).shape == (480, 640, 3)
    assert decode_image(encode_rgb("PNG"), name="a", draft_size=8).shape == (HEIGHT, WIDTH, 3)


@pytest.mark.parametrize("form", FORMATS)
def test_pillows_own_limit_never_warns(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", WIDTH * HEIGHT - 1)
    data = encode_rgb(form)
    if form in ("TIFF", "WEBP"):  # their readers in Pillow check by themselves
        with pytest.raises(ImageError) as caught:
            decode_image(data, name="a")
        assert caught.value.reason == "too_large"
    else:
        assert decode_image(data, name="a").shape == (HEIGHT, WIDTH, 3)


def test_threads_decode_alike_and_leave_pillow_alone() -> None:
    files = [encode_rgb(form) for form in FORMATS] * 20
    before = (list(warnings.filters), ImageFile.LOAD_TRUNCATED_IMAGES, Image.MAX_IMAGE_PIXELS)
    with ThreadPoolExecutor(4) as pool:
        decoded = list(pool.map(lambda data: decode_image(data, name="a"), files))
    after = (list(warnings.filters), ImageFile.LOAD_TRUNCATED_IMAGES, Image.MAX_IMAGE_PIXELS)
    assert before == after
    for data, pixels in zip(files, decoded, strict=True):
        np.testing.assert_array_equal(pixels, decode_image(data, name="a"))
