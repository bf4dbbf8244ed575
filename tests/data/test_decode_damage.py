"""Decoding: whatever is wrong with a file is named, and nothing else happens."""

from __future__ import annotations

import pickle
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from lesiontk.data.decode import ImageError, decode_image
from tests.data.sample_files import (
    FORMATS,
    HEIGHT,
    WIDTH,
    encode,
    encode_rgb,
    exif_of,
    make_png,
    make_rgb,
)


def resized_header(data: bytes, form: str) -> bytes:
    """The same file, whose header claims 60,000 x 60,000 pixels or the format's most."""
    if form == "PNG":
        return make_png(60_000, 60_000, zlib.compress(b"\0" * 100))
    if form == "JPEG":
        at = data.index(b"\xff\xc0") + 5
        return data[:at] + struct.pack(">HH", 60_000, 60_000) + data[at + 4 :]
    if form == "BMP":
        return data[:18] + struct.pack("<ll", 60_000, 60_000) + data[26:]
    if form == "WEBP":
        return data[:24] + b"\xff\xff\x00\xff\xff\x00" + data[30:]
    for tag in (256, 257):  # TIFF, little-endian
        at = data.index(struct.pack("<HHLL", tag, 4, 1, WIDTH if tag == 256 else HEIGHT))
        data = data[:at] + struct.pack("<HHLL", tag, 4, 1, 60_000) + data[at + 12 :]
    return data


DAMAGED: dict[str, tuple[bytes, str]] = {
    "no bytes": (b"", "empty"),
    "text": (b"not an image at all", "not_an_image"),
    "zeros": (bytes(5000), "not_an_image"),
    "a web page": (b"<!DOCTYPE html><html></html>", "unsupported"),
    "a GIF": (encode_rgb("GIF"), "unsupported"),
    "a JPEG 2000": (encode_rgb("JPEG2000"), "unsupported"),
    "a magic number alone": (b"\xff\xd8\xff", "truncated"),
    "a JPEG without a scan": (b"\xff\xd8\xff\xd9" + bytes(100), "corrupt"),
    "a PNG with a broken stream": (make_png(16, 16, b"no zlib stream"), "corrupt"),
    "a BMP of 13 bits": (
        encode_rgb("BMP").replace(b"\x01\0\x18\0", b"\x01\0\x0d\0"),
        "unsupported",
    ),
    "a TIFF of floats": (encode(Image.new("F", (16, 16), 0.5), "TIFF"), "unsupported"),
    "a thumbnail": (encode(Image.new("RGB", (7, 40)), "PNG"), "too_small"),
}


@pytest.mark.parametrize("what", DAMAGED)
def test_damage_is_named(what: str) -> None:
    data, reason = DAMAGED[what]
    with pytest.raises(ImageError, match="expected") as caught:
        decode_image(data, name="site 4/ISIC_1")
    assert caught.value.reason == reason
    assert caught.value.name == "site 4/ISIC_1"
    assert str(caught.value).startswith("site 4/ISIC_1: received ")


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("kept", [0.3, 0.6, 0.98])
def test_a_file_cut_short_is_truncated(form: str, kept: float) -> None:
    data = encode_rgb(form)
    with pytest.raises(ImageError) as caught:
        decode_image(data[: int(kept * len(data))], name="a")
    assert caught.value.reason == "truncated"


def test_no_flipped_bit_of_a_png_passes() -> None:
    data = encode_rgb("PNG")
    for at in range(len(data)):
        flipped = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
        with pytest.raises(ImageError):
            decode_image(flipped, name=f"byte {at}")


@pytest.mark.parametrize("form", FORMATS)
def test_a_header_that_claims_too_much_is_refused_before_decoding(
    form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    options: dict[str, Any] = {"exif": exif_of(1)} if form == "WEBP" else {}  # a longer header
    data = resized_header(encode_rgb(form, **options), form)

    def load(picture: Any) -> None:
        pytest.fail("decoding was begun")

    for reader in (ImageFile.ImageFile, TiffImageFile, WebPImageFile):
        monkeypatch.setattr(reader, "load", load)
    with pytest.raises(ImageError, match=r"6\d,\d{3} x 6\d,\d{3} pixels") as caught:
        decode_image(data, name="a")
    assert caught.value.reason == "too_large"


def test_limits_are_the_callers() -> None:
    data = encode_rgb("PNG")
    assert decode_image(data, name="a", max_pixels=WIDTH * HEIGHT, max_bytes=len(data)).size
    for limits in ({"max_pixels": WIDTH * HEIGHT - 1}, {"max_bytes": len(data) - 1}):
        with pytest.raises(ImageError, match="expected at most") as caught:
            decode_image(data, name="a", **limits)
        assert caught.value.reason == "too_large"


def test_the_bytes_say_what_a_file_is_and_not_its_name() -> None:
    data = encode_rgb("JPEG")
    for name in ("a.PNG", "a.JPG", "a.jpeg", "a", "a.b"):
        assert decode_image(data, name=name).shape == (HEIGHT, WIDTH, 3)


SEEDS = [encode_rgb(form, exif=exif_of(6)) for form in ("JPEG", "PNG", "TIFF", "WEBP")]
SEEDS += [encode_rgb("BMP"), encode(Image.fromarray(make_rgb()).convert("P"), "PNG")]


@settings(max_examples=300, derandomize=True)
@given(
    seed=st.sampled_from(SEEDS),
    changes=st.lists(st.tuples(st.floats(0, 0.999), st.integers(0, 255)), max_size=6),
    kept=st.one_of(st.just(1.0), st.floats(0, 1)),
)
def test_any_damage_gives_a_picture_or_an_image_error(
    seed: bytes, changes: list[tuple[float, int]], kept: float
) -> None:
    data = bytearray(seed)
    for place, value in changes:
        data[int(place * len(data))] = value
    try:
        decoded = decode_image(bytes(data[: int(kept * len(data))]), name="a", max_pixels=10**6)
    except ImageError:
        return
    assert decoded.dtype == np.uint8
    assert decoded.shape[2:] == (3,)


def test_image_errors_survive_pickling() -> None:
    error = ImageError("a message", "ISIC_1", "truncated")
    copy = pickle.loads(pickle.dumps(error))
    assert (str(copy), copy.name, copy.reason) == ("a message", "ISIC_1", "truncated")
