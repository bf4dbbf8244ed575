"""Recognize an image file by its bytes and reduce it to what its pixels need.

Metadata (EXIF, XMP, colour profiles, previews, later frames) is the part that is broken in most
broken image files, and the part about which Pillow warns. Python 3.11 cannot silence warnings in a
single thread, so Pillow receives nothing that could raise one. The orientation is read before it is
dropped.

Bundles contain this file: it needs only the standard library and runs on Python 3.8 or later.

Sources: JPEG ITU-T T.81 annex B; PNG third edition, section 5; TIFF 6.0, section 2; WebP container
specification (RFC 9649); EXIF 2.32, tag 0x0112.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass

SUFFIXES = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "PNG": (".png",),
    "BMP": (".bmp", ".dib"),
    "TIFF": (".tif", ".tiff"),
    "WEBP": (".webp",),
}
FORMATS = tuple(SUFFIXES)
DICOM_SUFFIXES = (".dcm",)
FORMAT_FROM_SUFFIX = {suffix: name for name, known in SUFFIXES.items() for suffix in known}

# Recognized only for the error message.
_FOREIGN = (
    (0, b"GIF8", "a GIF"),
    (0, b"%PDF", "a PDF document"),
    (0, b"PK\x03\x04", "a ZIP archive"),
    (0, b"<", "an HTML, XML or SVG text"),
    (0, b"\x00\x00\x00\x0cjP  ", "a JPEG 2000 image"),
    (0, b"II+\x00", "a BigTIFF image"),
    (0, b"MM\x00+", "a BigTIFF image"),
    (4, b"ftyp", "a HEIC, AVIF or video file"),
)

_TIFF_TYPE_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8}
_TIFF_SINGLE = {256, 257, 259, 262, 266, 277, 278, 284, 292, 293, 317, 322, 323, 531}
_TIFF_MANY = {258, 273, 279, 320, 324, 325, 338, 339, 347, 529, 530, 532}
_ORIENTATION = 0x0112
EXIF = b"Exif\x00\x00"


class ContainerError(ValueError):
    """Bytes that are not a complete image; `reason` is one word, the message states the finding."""

    def __init__(self, reason: str, found: str) -> None:
        super().__init__(found)
        self.reason = reason


@dataclass(frozen=True)
class Container:
    """One image file without its metadata.

    `size` is (width, height) where it must be known before Pillow opens the file. `transparent` is
    the colour that a PNG declares transparent, in the range of the decoded samples.
    """

    format: str
    data: bytes
    orientation: int = 1
    size: tuple[int, int] | None = None
    transparent: tuple[int, ...] = ()


def container_from_bytes(data: bytes) -> Container:
    """Return the essential parts of `data`. Raises `ContainerError` if any is missing."""
    for name, magic, read in _READERS:
        if data.startswith(magic) and (name != "WEBP" or data[8:12] == b"WEBP"):
            return read(data)
    for offset, magic, found in _FOREIGN:
        if data[offset : offset + len(magic)] == magic:
            raise ContainerError("unsupported", f"{found} ({len(data):,} bytes)")
    raise ContainerError(
        "not_an_image",
        f"{len(data):,} bytes beginning with 0x{data[:8].hex()}, which is not an image",
    )


def orientation_from_exif(block: bytes) -> int:
    """Return the EXIF orientation, 1 to 8, of a TIFF-structured block; 1 where it is unreadable."""
    if block.startswith(EXIF):
        block = block[len(EXIF) :]
    order = {b"II": "<", b"MM": ">"}.get(block[:2])
    if order is None or len(block) < 10:
        return 1
    start = struct.unpack_from(order + "L", block, 4)[0]
    if start + 2 > len(block):
        return 1
    count = struct.unpack_from(order + "H", block, start)[0]
    for at in range(start + 2, min(start + 2 + 12 * count, len(block) - 11), 12):
        tag, kind, values, value = struct.unpack_from(order + "HHLH", block, at)
        if tag == _ORIENTATION:
            return value if kind == 3 and values == 1 and 1 <= value <= 8 else 1
    return 1


def _read_jpeg(data: bytes) -> Container:
    """Keep tables, frame and scans, and of the application segments JFIF and Adobe (colour)."""
    parts = [data[:2]]
    orientation = 1
    at = 2
    while True:
        at = data.find(b"\xff", at)
        if at < 0 or at + 4 > len(data):
            raise ContainerError("truncated", "a JPEG that ends inside its header")
        marker = data[at + 1]
        if marker == 0xFF or marker in (0x00, 0x01) or 0xD0 <= marker <= 0xD8:
            at += 1 if marker == 0xFF else 2
            continue
        if marker == 0xD9:
            raise ContainerError("corrupt", "a JPEG without image data")
        if marker == 0xDA:
            return Container("JPEG", b"".join([*parts, data[at:]]), orientation)
        length = int.from_bytes(data[at + 2 : at + 4], "big")
        if length < 2:
            raise ContainerError("corrupt", f"a JPEG with a segment of {length} bytes")
        end = at + 2 + length
        if end > len(data):
            raise ContainerError("truncated", "a JPEG that ends inside its header")
        payload = data[at + 4 : end]
        if marker == 0xE1 and payload.startswith(EXIF) and orientation == 1:
            orientation = orientation_from_exif(payload)
        is_jfif = marker == 0xE0 and payload.startswith(b"JFIF\x00") and len(payload) >= 14
        is_adobe = marker == 0xEE and payload.startswith(b"Adobe") and len(payload) >= 12
        is_metadata = 0xE0 <= marker <= 0xEF or marker == 0xFE
        if is_jfif or is_adobe or not is_metadata:
            parts.append(data[at:end])
        at = end


def _read_png(data: bytes) -> Container:
    """Keep IHDR, PLTE, tRNS, IDAT and IEND, each with its checksum verified."""
    parts = [data[:8]]
    kinds: set[bytes] = set()
    orientation, depth, colour = 1, 8, 2
    transparent: tuple[int, ...] = ()
    at = 8
    while b"IEND" not in kinds:
        length = int.from_bytes(data[at : at + 4], "big")
        kind = data[at + 4 : at + 8]
        end = at + 12 + length
        if end > len(data):
            raise ContainerError("truncated", "a PNG that ends before its IEND chunk")
        if at == 8 and kind != b"IHDR":
            raise ContainerError("corrupt", "a PNG whose first chunk is not IHDR")
        body = data[at + 8 : end - 4]
        if kind == b"eXIf":
            orientation = orientation_from_exif(body)
        elif kind in (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"):
            if zlib.crc32(data[at + 4 : end - 4]) != int.from_bytes(data[end - 4 : end], "big"):
                raise ContainerError("corrupt", f"a PNG whose {kind.decode()} checksum is wrong")
            if kind == b"IHDR" and length == 13:
                depth, colour = body[8], body[9]
            if kind == b"tRNS" and colour in (0, 2):
                transparent = _transparent_from_trns(body, depth, colour)
            else:
                parts.append(data[at:end])
        elif kind[:1].isupper() or not kind.isalpha():
            raise ContainerError("unsupported", f"a PNG with the critical chunk {kind!r}")
        kinds.add(kind)
        at = end
    if b"IDAT" not in kinds:
        raise ContainerError("corrupt", "a PNG without image data")
    return Container("PNG", b"".join(parts), orientation, transparent=transparent)


def _transparent_from_trns(body: bytes, depth: int, colour: int) -> tuple[int, ...]:
    """Return the transparent grey or RGB value, scaled as Pillow scales that bit depth."""
    if len(body) != (2 if colour == 0 else 6):
        raise ContainerError("corrupt", f"a PNG with a tRNS chunk of {len(body)} bytes")
    if colour == 2 and depth == 16:
        raise ContainerError("unsupported", "a PNG with 16-bit colour and a transparent colour")
    scale = {1: 255, 2: 85, 4: 17}.get(depth, 1)
    return tuple(scale * value for value in struct.unpack(f">{len(body) // 2}H", body))


def _read_tiff(data: bytes) -> Container:
    """Reduce the first directory, in place, to the tags that describe pixels; drop later pages."""
    order = "<" if data[:2] == b"II" else ">"
    if len(data) < 8 or (start := struct.unpack_from(order + "L", data, 4)[0]) + 2 > len(data):
        raise ContainerError("truncated", "a TIFF that ends before its directory")
    count = struct.unpack_from(order + "H", data, start)[0]
    if start + 2 + 12 * count + 4 > len(data):
        raise ContainerError("truncated", "a TIFF that ends inside its directory")
    entries: dict[int, bytes] = {}
    total = 0
    for at in range(start + 2, start + 2 + 12 * count, 12):
        tag, kind, values, offset = struct.unpack_from(order + "HHLL", data, at)
        if tag not in _TIFF_SINGLE | _TIFF_MANY or tag in entries:
            continue
        size = _TIFF_TYPE_BYTES.get(kind, 0) * values
        if size == 0 or (tag in _TIFF_SINGLE and (values != 1 or kind not in (1, 3, 4))):
            raise ContainerError("corrupt", f"a TIFF with a wrong type or count in tag {tag}")
        if size > 4 and offset + size > len(data):
            raise ContainerError("truncated", f"a TIFF that ends before the values of tag {tag}")
        total += size
        entries[tag] = data[at : at + 12]
    if total > len(data):
        raise ContainerError("corrupt", "a TIFF whose tags overlap")
    # The four zero bytes are the offset of the next page: none.
    directory = struct.pack(order + "H", len(entries)) + b"".join(entries.values()) + bytes(4)
    cleaned = data[:start] + directory + data[start + len(directory) :]
    return Container("TIFF", cleaned, orientation_from_exif(data))


def _read_webp(data: bytes) -> Container:
    """Find the canvas size, because the decoder allocates the canvas when it opens the file."""
    if len(data) < 30 or 8 + int.from_bytes(data[4:8], "little") > len(data) + 1:
        raise ContainerError("truncated", "a WebP that is shorter than its header states")
    kind = data[12:16]
    if kind == b"VP8X":
        size = tuple(int.from_bytes(data[at : at + 3], "little") + 1 for at in (24, 27))
    elif kind == b"VP8L":
        bits = int.from_bytes(data[21:25], "little")
        size = ((bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1)
    elif kind == b"VP8 ":
        size = tuple(int.from_bytes(data[at : at + 2], "little") & 0x3FFF for at in (26, 28))
    else:
        raise ContainerError("corrupt", f"a WebP that begins with the chunk {kind!r}")
    return Container("WEBP", data, size=(size[0], size[1]))


_READERS: tuple[tuple[str, bytes, Callable[[bytes], Container]], ...] = (
    ("JPEG", b"\xff\xd8\xff", _read_jpeg),
    ("PNG", b"\x89PNG\r\n\x1a\n", _read_png),
    ("BMP", b"BM", lambda data: Container("BMP", data)),
    ("TIFF", b"II*\x00", _read_tiff),
    ("TIFF", b"MM\x00*", _read_tiff),
    ("WEBP", b"RIFF", _read_webp),
)
