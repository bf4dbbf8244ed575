"""Small pictures made by formula, and the files that hold them."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

WIDTH, HEIGHT = 40, 24
FORMATS = ["JPEG", "PNG", "BMP", "TIFF", "WEBP"]


def make_rgb(height: int = HEIGHT, width: int = WIDTH) -> NDArray[np.uint8]:
    y, x = np.mgrid[:height, :width]
    return np.stack((x * 6 % 256, y * 9 % 256, (x * y) % 256), axis=2).astype(np.uint8)


def encode(image: Image.Image, form: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()


def encode_rgb(form: str, pixels: NDArray[np.uint8] | None = None, **options: Any) -> bytes:
    return encode(Image.fromarray(make_rgb() if pixels is None else pixels), form, **options)


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">L", len(body)) + kind + body + struct.pack(">L", zlib.crc32(kind + body))


def make_png(width: int, height: int, pixels: bytes, *extra: bytes) -> bytes:
    header = chunk(b"IHDR", struct.pack(">LLBBBBB", width, height, 8, 2, 0, 0, 0))
    data = chunk(b"IDAT", pixels)
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(extra) + data + chunk(b"IEND", b"")


def exif_of(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x010E] = "a description, so that the orientation is not alone"
    exif[0x0112] = orientation
    return exif.tobytes()


def write_images(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode_rgb("PNG" if name.endswith("png") else "JPEG"))


def write_zip(path: Path, *members: str) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for member in members:
            archive.writestr(member, encode_rgb("JPEG"))
