"""Adding a text to an engine file without changing its existing bytes, and removing it again.

A TFLite file with labels and a ``.keras`` file end in a ZIP archive: the text is the archive's
comment (APPNOTE 6.3, section 4.3.16). An ONNX file is a protobuf message, in which a repeated field
may follow all others: the text is one more entry of ``metadata_props``.
"""

from __future__ import annotations

import struct
from typing import Final

from lesiontk.errors import DataError

NAME: Final = "lesiontk_assessment"
MARK: Final = f"{NAME}\n".encode()
END: Final = struct.Struct("<4s4H2LH")
"""The archive's end record: signature, disks, entries here and in total, size and offset of the
directory, length of the comment."""
END_MARK: Final = b"PK\x05\x06"
LONGEST: Final = 0xFFFF
METADATA_PROPS: Final = 14
LENGTH_DELIMITED, VARINT, FIXED = 2, 0, {1: 8, 5: 4}


def add_to_archive(content: bytes, text: str) -> bytes:
    """Return a file that ends in a ZIP archive, or in nothing, with `text` as its comment."""
    comment = MARK + text.encode()
    if len(comment) > LONGEST:
        raise DataError(f"the record has {len(comment)} bytes; expected at most {LONGEST}.")
    at = _find_end(content)
    if at is None:
        fields: tuple[int, ...] = (0, 0, 0, 0, 0, len(content))
        at = len(content)
    else:
        fields = END.unpack_from(content, at)[1:-1]
    return content[:at] + END.pack(END_MARK, *fields, len(comment)) + comment


def split_archive(content: bytes) -> tuple[bytes, str | None]:
    """Return the file as it was before `add_to_archive`, and the text or None."""
    at = _find_end(content)
    if at is None or not content.startswith(MARK, at + END.size):
        return content, None
    fields = END.unpack_from(content, at)[1:-1]
    text = _decode(content[at + END.size + len(MARK) :])
    if fields[3] == 0:  # no entries: the archive was made for the comment
        return content[:at], text
    return content[:at] + END.pack(END_MARK, *fields, 0), text


def _find_end(content: bytes) -> int | None:
    """Return the offset of the archive's end record."""
    first = max(0, len(content) - END.size - LONGEST)
    at = content.rfind(END_MARK, first)
    while at >= 0:
        if at + END.size <= len(content):
            length = END.unpack_from(content, at)[-1]
            if at + END.size + length == len(content):
                return at
        at = content.rfind(END_MARK, first, at)
    return None


def add_to_onnx(content: bytes, text: str) -> bytes:
    """Return the ONNX file with `text` as one more entry of its metadata."""
    entry = _field(1, NAME.encode()) + _field(2, text.encode())
    return content + _field(METADATA_PROPS, entry)


def split_onnx(content: bytes) -> tuple[bytes, str | None]:
    """Return the file as it was before `add_to_onnx`, and the text or None.

    An invalid ONNX file is returned unchanged: opening it raises the error.
    """
    wanted = _field(1, NAME.encode())
    try:
        for start, body, end in _list_fields(content, METADATA_PROPS):
            if content.startswith(wanted, body):
                at = body + len(wanted)
                _, at = _read_varint(content, at)
                _, at = _read_varint(content, at)
                return content[:start] + content[end:], _decode(content[at:end])
    except (IndexError, ValueError):
        pass
    return content, None


def _list_fields(content: bytes, number: int) -> list[tuple[int, int, int]]:
    """Return start, start of the content and end of each field with that number."""
    found, at = [], 0
    while at < len(content):
        start = at
        tag, at = _read_varint(content, at)
        kind = tag & 7
        if kind == VARINT:
            _, at = _read_varint(content, at)
        elif kind in FIXED:
            at += FIXED[kind]
        elif kind == LENGTH_DELIMITED:
            length, at = _read_varint(content, at)
            if at + length > len(content):
                raise ValueError("the file ends too early")
            if tag >> 3 == number:
                found.append((start, at, at + length))
            at += length
        else:
            raise ValueError(f"wire type {kind} is not of an ONNX file")
    return found


def _field(number: int, data: bytes) -> bytes:
    return _varint(number << 3 | LENGTH_DELIMITED) + _varint(len(data)) + data


def _varint(value: int) -> bytes:
    parts = []
    while value >= 128:
        parts.append(value & 127 | 128)
        value >>= 7
    return bytes([*parts, value])


def _read_varint(content: bytes, at: int) -> tuple[int, int]:
    value = 0
    for place in range(10):
        byte = content[at + place]
        value |= (byte & 127) << 7 * place
        if byte < 128:
            return value, at + place + 1
    raise ValueError("a number does not end")


def _decode(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise DataError(
            f"its threshold and figures are not text ({error}); evaluate the engine again."
        ) from error
