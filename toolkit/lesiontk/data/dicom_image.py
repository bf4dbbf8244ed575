"""The image in a DICOM file: photographs of the skin and secondary captures.

Nothing of the header but what describes the pixels is read, and none of it enters a message: it
names a patient. Bundles contain this file: it needs NumPy and pydicom (2.4 or later) and runs on
Python 3.8 or later.

Source: DICOM PS3.3 C.7.6.3 (image pixel module), PS3.5 annex A (transfer syntaxes).
"""

from __future__ import annotations

import io
import logging
import re
import struct
import warnings
from typing import Any

import numpy as np

PREFIX = b"DICM"
OFFSET = 128
"""Where a DICOM file has its prefix."""
KINDS = {
    "1.2.840.10008.5.1.4.1.1.77.1.4": "VL Photographic Image",
    "1.2.840.10008.5.1.4.1.1.77.1.7": "Dermoscopic Photography Image",
    "1.2.840.10008.5.1.4.1.1.7": "Secondary Capture Image",
    "1.2.840.10008.5.1.4.1.1.7.4": "Multi-frame True Color Secondary Capture Image",
}
UNCOMPRESSED = ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2")
JPEG = ("1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51")
"""Baseline and extended (of which the 8-bit form is read)."""
ITEM = b"\xfe\xff\x00\xe0"
NEEDED = ["Rows", "Columns", "SamplesPerPixel", "BitsAllocated", "PhotometricInterpretation",
          "PlanarConfiguration", "NumberOfFrames", "PixelRepresentation"]  # fmt: skip


class DicomError(ValueError):
    """A file without an image that can be read; `reason` is one word, as in `PictureError`."""

    def __init__(self, reason: str, found: str) -> None:
        super().__init__(found)
        self.reason = reason


def is_dicom(data: bytes) -> bool:
    """Return whether the bytes are a DICOM file."""
    return data[OFFSET : OFFSET + len(PREFIX)] == PREFIX


def read_dicom(data: bytes, max_pixels: int) -> Any:
    """Return the first frame: the bytes of its JPEG file, or its pixels uint8 [H, W, 3] RGB.

    Uncompressed pixels may be RGB, YBR_FULL or 8-bit grey. Raises `DicomError` for other objects
    and encodings, for more than `max_pixels`, and without pydicom.
    """
    pydicom = _import_pydicom()
    try:
        header = pydicom.dcmread(io.BytesIO(data), specific_tags=NEEDED, stop_before_pixels=True)
        meta = header.file_meta
        kind, syntax = str(meta.MediaStorageSOPClassUID), str(meta.TransferSyntaxUID)
        height, width, samples = (
            int(header[name].value) for name in ("Rows", "Columns", "SamplesPerPixel")
        )
        bits, colours = int(header.BitsAllocated), str(header.PhotometricInterpretation)
        planar = int(header.get("PlanarConfiguration") or 0)
        frames = int(header.get("NumberOfFrames") or 1)
    except Exception as error:  # noqa: BLE001 - pydicom's have no common base, and name values
        raise DicomError(
            "corrupt", f"a DICOM file whose header is broken ({type(error).__name__})"
        ) from None
    if kind not in KINDS:
        raise DicomError("unsupported", "a DICOM object that is no photograph or secondary capture")
    if syntax not in UNCOMPRESSED + JPEG:
        standard = re.fullmatch(r"1\.2\.840\.10008\.[0-9.]{1,40}", syntax)
        named = f"the transfer syntax {syntax}" if standard else "an unknown transfer syntax"
        raise DicomError("unsupported", f"a DICOM file with {named}")
    if bits != 8 or samples not in (1, 3):
        raise DicomError("unsupported", f"a DICOM image of {samples} samples of {bits} bits")
    if width * height > max_pixels:
        raise DicomError("too_large", f"a DICOM image of {width:,} x {height:,} pixels")
    try:
        content = pydicom.dcmread(io.BytesIO(data), specific_tags=["PixelData"]).PixelData
        if syntax in JPEG:
            return join_fragments(content, frames)
        received = len(content)  # a TypeError without pixels
    except Exception as error:  # noqa: BLE001
        raise DicomError(
            "corrupt", f"a DICOM file whose pixels are broken ({type(error).__name__})"
        ) from None
    size = height * width * samples
    if received < size:
        raise DicomError("truncated", f"a DICOM image with {received:,} of {size:,} bytes")
    values = np.frombuffer(content[:size], np.uint8)
    if planar and samples == 3:
        return _to_rgb(values.reshape(3, height, width).transpose(1, 2, 0), colours)
    return _to_rgb(values.reshape(height, width, samples), colours)


def _import_pydicom() -> Any:
    """Return pydicom without its warnings, which quote values of the header.

    They stay off in the process: to restore a filter is not safe with threads.
    """
    try:
        import pydicom
    except ImportError as error:
        raise DicomError(
            "unsupported", "a DICOM file, which needs the package pydicom (pip install pydicom)"
        ) from error
    warnings.filterwarnings("ignore", module=r"pydicom\.")
    logging.getLogger("pydicom").disabled = True
    return pydicom


def join_fragments(content: bytes, frames: int) -> bytes:
    """Return the first frame of encapsulated pixels (PS3.5 A.4).

    A single frame may have several fragments. Of several frames each is taken to have one, as
    encoders write them. Raises `ValueError` for items that do not follow each other.
    """
    fragments = []
    at = 0
    while content[at : at + 4] == ITEM:
        (length,) = struct.unpack_from("<I", content, at + 4)
        if length > len(content) - at - 8:
            raise ValueError("an item is longer than the pixels")
        fragments.append(content[at + 8 : at + 8 + length])
        at += 8 + length
    if len(fragments) < 2:  # the first is the table of offsets
        raise ValueError("there is no frame")
    return b"".join(fragments[1:] if frames == 1 else fragments[1:2])


def _to_rgb(values: Any, colours: str) -> Any:
    if colours == "YBR_FULL" and values.shape[2] == 3:
        from PIL import Image

        picture = Image.fromarray(np.ascontiguousarray(values), "YCbCr")
        return np.array(picture.convert("RGB"))
    if colours == "MONOCHROME1":
        values = 255 - values
    elif colours not in ("RGB", "MONOCHROME2"):
        raise DicomError("unsupported", "a DICOM image with another colour space than RGB or YBR")
    return np.ascontiguousarray(np.broadcast_to(values, (*values.shape[:2], 3)))
