"""Photographs in DICOM files: the same pixels, no byte of a header in a message."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    UID,
    CTImageStorage,
    DermoscopicPhotographyImageStorage,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    SecondaryCaptureImageStorage,
)

from lesiontk.data.decode import ImageError, decode_image
from lesiontk.data.pictures import read_picture

SECRET = "Doe^Jane"


def pixels(height: int = 24, width: int = 32) -> NDArray[np.uint8]:
    return np.random.default_rng(1).integers(0, 256, (height, width, 3)).astype(np.uint8)


def write(
    content: bytes,
    *,
    size: tuple[int, int] = (24, 32),
    kind: str = DermoscopicPhotographyImageStorage,
    syntax: str = ExplicitVRLittleEndian,
    **changes: Any,
) -> bytes:
    """Return a DICOM file with these pixel bytes; `changes` are elements by keyword."""
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID = kind
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID = UID("1.2.3.4")
    data.file_meta.TransferSyntaxUID = syntax
    data.PatientName, data.PatientID = SECRET, "12345"
    data.Rows, data.Columns = size
    data.SamplesPerPixel, data.PhotometricInterpretation = 3, "RGB"
    data.PlanarConfiguration, data.PixelRepresentation = 0, 0
    data.BitsAllocated = data.BitsStored = 8
    data.HighBit = 7
    for name, value in changes.items():
        setattr(data, name, value)
    data.PixelData = content + b"\0" * (len(content) % 2)
    data["PixelData"].VR = "OB"
    stream = io.BytesIO()
    data.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
def test_uncompressed_pixels_are_returned_as_they_are(syntax: str) -> None:
    image = pixels()
    found = decode_image(write(image.tobytes(), syntax=syntax), name="a.dcm")
    assert np.array_equal(found, image)


def test_planes_and_grey_and_luminance() -> None:
    image = pixels()
    planes = write(np.ascontiguousarray(image.transpose(2, 0, 1)).tobytes(), PlanarConfiguration=1)
    assert np.array_equal(decode_image(planes, name="a"), image)
    grey = image[..., 0]
    for colours, expected in (("MONOCHROME2", grey), ("MONOCHROME1", 255 - grey)):
        data = write(grey.tobytes(), SamplesPerPixel=1, PhotometricInterpretation=colours)
        assert np.array_equal(decode_image(data, name="a"), np.repeat(expected[..., None], 3, 2))
    luminance = np.array(Image.fromarray(image).convert("YCbCr"))
    data = write(luminance.tobytes(), PhotometricInterpretation="YBR_FULL")
    assert np.abs(decode_image(data, name="a").astype(int) - image).max() <= 4  # rounded twice


def test_a_jpeg_inside_gives_the_pixels_of_the_jpeg_file(tmp_path: Path) -> None:
    stream = io.BytesIO()
    Image.fromarray(pixels(64, 48)).save(stream, "JPEG", quality=90)
    data = write(
        encapsulate([stream.getvalue()]),
        size=(64, 48),
        syntax=JPEGBaseline8Bit,
        PhotometricInterpretation="YBR_FULL_422",
    )
    (tmp_path / "a.dcm").write_bytes(data)
    found = read_picture(tmp_path / "a.dcm")
    assert np.array_equal(found, decode_image(stream.getvalue(), name="a.jpg"))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"kind": CTImageStorage}, "unsupported"),
        ({"syntax": JPEG2000Lossless, "content": encapsulate([b"\0" * 40])}, "unsupported"),
        ({"BitsAllocated": 16, "BitsStored": 16, "HighBit": 15}, "unsupported"),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, "unsupported"),
        ({"size": (65000, 65000)}, "too_large"),
        ({"size": (240, 320)}, "truncated"),
        ({"size": (4, 32)}, "too_small"),
        ({"content": b""}, "corrupt"),
        ({"SamplesPerPixel": 1, "PhotometricInterpretation": "YBR_FULL"}, "unsupported"),
        ({"kind": SecondaryCaptureImageStorage, "Rows": 0}, "too_small"),
        ({"syntax": JPEGBaseline8Bit, "content": encapsulate([b"\0" * 40])}, "not_an_image"),
        ({"syntax": JPEGBaseline8Bit, "content": b"\xfe\xff\x00\xe0\xff" + b"\0" * 35}, "corrupt"),
    ],
)
def test_other_files_are_refused_without_a_word_of_the_header(
    changes: dict[str, Any], reason: str
) -> None:
    content = changes.pop("content", pixels().tobytes())
    with pytest.raises(ImageError) as refused:
        decode_image(write(content, **changes), name="a.dcm")
    assert refused.value.reason == reason
    assert SECRET not in str(refused.value)
    assert "12345" not in str(refused.value)


@given(st.data())
def test_damaged_files_never_end_in_another_error(data: st.DataObject) -> None:
    content = bytearray(write(pixels().tobytes()))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(132, 700))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(140, len(content)))
    try:
        found = decode_image(bytes(content[:cut]), name="a.dcm", max_pixels=10_000)
        assert found.dtype == np.uint8
    except ImageError as error:
        assert SECRET not in str(error)  # noqa: PT017


@pytest.mark.parametrize("instead", [b"1.2.840.10008.1.2.1", b"1.2.840.10008.5.1.4.1.1.77.1.4.1"])
def test_a_name_in_the_place_of_a_uid_is_in_no_message_warning_or_log(
    instead: bytes, tmp_path: Path
) -> None:
    data = write(
        pixels().tobytes(),
        kind="1.2.840.10008.5.1.4.1.1.77.1.4.1",
        SpecificCharacterSet="ISO_IR 100",
    )
    data = data.replace(instead, SECRET.encode().ljust(len(instead)), 1)
    (tmp_path / "a.dcm").write_bytes(data.replace(b"ISO_IR 100", SECRET.encode().ljust(10), 1))
    code = (
        "import logging, sys; logging.basicConfig(level=0)\n"
        "from lesiontk.data.picture_decoder import PictureError, decode_picture\n"
        "try: decode_picture(open(sys.argv[1], 'rb').read(), name='a.dcm')\n"
        "except PictureError as error: print(error)\n"
    )
    ended = subprocess.run(
        [sys.executable, "-W", "always", "-c", code, str(tmp_path / "a.dcm")],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ended.returncode == 0
    assert "a.dcm: received a DICOM" in ended.stdout
    assert "Doe" not in ended.stdout + ended.stderr


def test_without_pydicom_the_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pydicom", None)
    with pytest.raises(ImageError, match="pip install pydicom"):
        decode_image(write(pixels().tobytes()), name="a.dcm")
