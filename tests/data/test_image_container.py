"""Cutting image files down to their pixels: metadata cannot warn, hurt or travel on."""

from __future__ import annotations

import io
import struct
import warnings
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from lesiontk.data.decode import decode_image
from lesiontk.data.image_container import container_from_bytes, orientation_from_exif
from tests.data.sample_files import HEIGHT, WIDTH, chunk, encode_rgb, make_png, make_rgb


def test_broken_metadata_neither_warns_nor_hurts() -> None:
    broken_exif = b"Exif\0\0II*\0\x08\0\0\0\x05\0" + struct.pack("<HHLL", 0x011A, 5, 9, 4000)
    jpeg = encode_rgb("JPEG")
    segment = b"\xff\xe1" + struct.pack(">H", len(broken_exif) + 2) + broken_exif
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        Image.open(io.BytesIO(jpeg[:2] + segment + jpeg[2:])).getexif()
    assert seen, "this EXIF block no longer makes Pillow warn; take a worse one"
    decoded = decode_image(jpeg[:2] + segment + jpeg[2:], name="a")
    np.testing.assert_array_equal(decoded, decode_image(jpeg, name="a"))

    rows = b"".join(b"\0" + row.tobytes() for row in make_rgb())
    png = make_png(WIDTH, HEIGHT, zlib.compress(rows), chunk(b"acTL", struct.pack(">LL", 0, 0)))
    np.testing.assert_array_equal(decode_image(png, name="a"), make_rgb())

    tiff = encode_rgb("TIFF", description="x" * 50)
    at = tiff.index(struct.pack("<HHL", 270, 2, 51))
    tiff = tiff[: at + 4] + struct.pack("<L", 2**31) + tiff[at + 8 :]
    np.testing.assert_array_equal(decode_image(tiff, name="a"), make_rgb())


def test_the_cleaned_file_is_not_longer_and_has_no_metadata() -> None:
    secret = "taken at the clinic of Dr. Example"
    for form in ("JPEG", "TIFF", "PNG"):
        exif = Image.Exif()
        exif[0x010E] = secret
        data = encode_rgb(form, exif=exif)
        container = container_from_bytes(data)
        assert container.format == form
        assert len(container.data) <= len(data)
        assert (secret.encode() in container.data) == (form == "TIFF")  # there out of reach only


@given(st.binary(max_size=60), st.sampled_from([b"II*\0\x08\0\0\0", b"MM\0*\0\0\0\x08", b""]))
def test_no_exif_block_breaks_the_reading_of_the_orientation(block: bytes, start: bytes) -> None:
    assert 1 <= orientation_from_exif(start + block) <= 8


@pytest.mark.parametrize("order", ["<", ">"])
def test_an_orientation_of_nonsense_is_none(order: str) -> None:
    start = b"II*\0" if order == "<" else b"MM\0*"

    def block(value: int) -> bytes:
        return start + struct.pack(order + "LHHHLHH", 8, 1, 0x0112, 3, 1, value, 0)

    assert [orientation_from_exif(block(value)) for value in (1, 6, 8, 9, 0)] == [1, 6, 8, 1, 1]
