"""Reading an ONNX file's description without loading its weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import BinaryIO

from lesiontk.backends.backend import SPEC_KEY
from lesiontk.errors import DataError

METADATA_PROPS = 14  # the field's number in onnx.proto's ModelProto
KEY, VALUE = 1, 2  # in StringStringEntryProto
LENGTH_DELIMITED, VARINT = 2, 0


def read_backend_name(path: Path) -> str | None:
    """Return the back end in an ONNX file's description, or None.

    Only the top level of the file is parsed; its weights are skipped. An invalid or damaged file
    has no description: opening it raises the error.
    """
    try:
        document = json.loads(read_description(path) or "{}")
        return str(document["backend"])
    except (OSError, KeyError, TypeError, ValueError, RecursionError, DataError):
        return None


def read_description(path: Path) -> str | None:
    """Return the lesiontk description in an ONNX file, or None.

    Raises `DataError` for an invalid ONNX file.
    """
    try:
        with path.open("rb") as stream:
            return dict(_read_metadata(stream, path.stat().st_size)).get(SPEC_KEY)
    except (KeyError, ValueError, IndexError) as error:
        raise DataError(f"{path.name} is not an intact ONNX file ({error}).") from error


def _read_metadata(stream: BinaryIO, size: int) -> list[tuple[str, str]]:
    found = []
    while stream.tell() < size:
        number, kind = divmod(_read_varint(stream), 8)
        if kind == VARINT:
            _read_varint(stream)
        elif kind == LENGTH_DELIMITED:
            length = _read_varint(stream)
            if length > size - stream.tell():
                raise ValueError("the file ends too early")
            if number == METADATA_PROPS:
                end = stream.tell() + length
                texts = {}
                while stream.tell() < end:
                    field = _read_varint(stream) // 8
                    texts[field] = stream.read(_read_varint(stream)).decode()
                found.append((texts[KEY], texts[VALUE]))
            else:
                stream.seek(length, 1)
        else:
            raise ValueError(f"wire type {kind} is not of an ONNX file")
    return found


def _read_varint(stream: BinaryIO) -> int:
    value = 0
    for place in range(10):
        byte = stream.read(1)[0]  # IndexError at the file's end
        value |= (byte & 127) << 7 * place
        if byte < 128:
            return value
    raise ValueError("a number does not end")
