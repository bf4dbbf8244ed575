"""Tensors of a PyTorch weights file, read without PyTorch and without executing its pickles.

The format is that of ``torch.save`` before 1.6: four pickles (magic number, version, machine, and
the tensors' shapes), a pickled list of storage names, then each storage's length and bytes.
A pickle is a program: only the instructions that build tensors, numbers, text, tuples, lists and
dictionaries are interpreted here.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lesiontk.errors import DataError, show_value

MAX_BYTES = 2**30
MAX_PICKLED = 2**20
"""Bytes of the five pickles together; they describe tensors, about 150 bytes each."""
MAX_RANK = 8
MAGIC, PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
DTYPES: dict[str, np.dtype[Any]] = {
    "torch FloatStorage": np.dtype("<f4"),
    "torch LongStorage": np.dtype("<i8"),
}
DICTIONARY, TENSOR = "collections OrderedDict", "torch._utils _rebuild_tensor_v2"
KNOWN = (DICTIONARY, TENSOR, *DTYPES)
TUPLES = (pickle.TUPLE1, pickle.TUPLE2, pickle.TUPLE3)


@dataclass(frozen=True, slots=True)
class _Global:
    name: str


@dataclass(frozen=True, slots=True)
class _Storage:
    key: str
    dtype: np.dtype[Any]
    length: int


@dataclass(frozen=True, slots=True)
class _Tensor:
    """A view of a storage; offset and strides count elements."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def read_torch_tensors(path: Path) -> dict[str, NDArray[Any]]:
    """Return name -> array of a ``state_dict`` of float32 and int64 tensors.

    Raises `DataError` if the file is larger than `MAX_BYTES`, damaged, of another format, or
    contains anything but tensors; a tensor takes no more memory than its storage in the file.
    """
    size = path.stat().st_size
    if size > MAX_BYTES:
        raise DataError(f"{path.name} has {size:,} bytes; expected at most {MAX_BYTES:,}.")
    content = path.read_bytes()
    try:
        return _read_tensors(content)
    except (ValueError, KeyError, IndexError, TypeError) as error:
        raise DataError(
            f"{path.name} is damaged, or contains other objects than a state_dict: {error}"
        ) from error
    except DataError as error:
        raise DataError(f"{path.name} {error}") from error


def _read_tensors(content: bytes) -> dict[str, NDArray[Any]]:
    if not content.startswith(pickle.dumps(MAGIC, 2) + pickle.dumps(PROTOCOL, 2)):
        raise DataError(
            "is not in the format of PyTorch before 1.6; expected a file of torch.save(state_dict, "
            "FILE, _use_new_zipfile_serialization=False)."
        )
    stream = io.BytesIO(content[:MAX_PICKLED])
    *_, machine, tensors, keys = (_interpret(stream) for _ in range(5))
    if not isinstance(machine, dict) or machine.get("little_endian") is not True:
        raise ValueError("its numbers are not little-endian")
    if not isinstance(tensors, dict) or not all(isinstance(t, _Tensor) for t in tensors.values()):
        raise DataError("contains other objects than named tensors.")
    declared = {tensor.storage.key: tensor.storage for tensor in tensors.values()}
    if any(declared[tensor.storage.key] != tensor.storage for tensor in tensors.values()):
        raise ValueError("a storage is declared twice, with another type or length")
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise TypeError("its storages have no names")
    if sorted(keys) != sorted(declared):
        raise ValueError("its list of storages differs from those of its tensors")
    storages, at = {}, stream.tell()
    for key in keys:
        storages[key], at = _read_storage(content, at, declared[key])
    if at != len(content):
        raise ValueError(f"{len(content) - at} bytes follow the last storage")
    if sum(prod(tensor.shape) for tensor in tensors.values()) > sum(map(len, storages.values())):
        raise DataError("contains tensors larger than the numbers stored for them.")
    return {name: _read_tensor(name, tensor, storages) for name, tensor in tensors.items()}


def _read_storage(content: bytes, at: int, declared: _Storage) -> tuple[NDArray[Any], int]:
    """Return the numbers of the storage at a position, and the position after it."""
    length = int.from_bytes(content[at : at + 8], "little")
    if length != declared.length:
        raise DataError(f"stores {length:,} numbers where its tensors declare {declared.length:,}.")
    end = at + 8 + length * declared.dtype.itemsize
    if end > len(content):
        raise DataError(f"ends after {len(content):,} bytes; expected at least {end:,}.")
    return np.frombuffer(content, declared.dtype, length, at + 8), end


def _read_tensor(name: str, tensor: _Tensor, storages: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
    """Return a contiguous copy of a view that lies within its storage."""
    values = storages[tensor.storage.key]
    last = tensor.offset + sum(
        (size - 1) * stride for size, stride in zip(tensor.shape, tensor.strides, strict=True)
    )
    if 0 in tensor.shape or last >= len(values) or prod(tensor.shape) > len(values):
        raise DataError(
            f"declares {show_value(name)} of shape {show_value(tensor.shape)}, which exceeds its "
            f"storage of {len(values):,} numbers."
        )
    strides = [stride * values.itemsize for stride in tensor.strides]
    view = np.lib.stride_tricks.as_strided(values[tensor.offset :], tensor.shape, strides)
    return np.ascontiguousarray(view).reshape(tensor.shape)


def _interpret(stream: io.BytesIO) -> Any:
    """Return what the next pickle of a stream builds; `DataError` if that is no data."""
    stack: list[Any] = []
    marks: list[int] = []
    memo: dict[int, Any] = {}

    def pop_last(count: int) -> list[Any]:
        items = stack[len(stack) - count :]
        del stack[len(stack) - count :]
        return items

    def pop_to_mark() -> list[Any]:
        return pop_last(len(stack) - marks.pop())

    while code := stream.read(1):
        match code:
            case pickle.PROTO:
                _read_number(stream, 1)
            case pickle.STOP:
                return stack.pop()
            case pickle.MARK:
                marks.append(len(stack))
            case pickle.NONE:
                stack.append(None)
            case pickle.NEWTRUE | pickle.NEWFALSE:
                stack.append(code == pickle.NEWTRUE)
            case pickle.BININT:
                stack.append(_read_number(stream, 4, signed=True))
            case pickle.BININT1 | pickle.BININT2:
                stack.append(_read_number(stream, 1 if code == pickle.BININT1 else 2))
            case pickle.LONG1:
                stack.append(_read_number(stream, _read_number(stream, 1), signed=True))
            case pickle.BINUNICODE:
                stack.append(_read(stream, _read_number(stream, 4)).decode())
            case pickle.EMPTY_TUPLE:
                stack.append(())
            case pickle.TUPLE1 | pickle.TUPLE2 | pickle.TUPLE3:
                stack.append(tuple(pop_last(1 + TUPLES.index(code))))
            case pickle.TUPLE:
                stack.append(tuple(pop_to_mark()))
            case pickle.EMPTY_LIST:
                stack.append([])
            case pickle.APPEND | pickle.APPENDS:
                items = pop_last(1) if code == pickle.APPEND else pop_to_mark()
                if not isinstance(stack[-1], list):
                    raise TypeError("it appends to what is no list")
                stack[-1].extend(items)
            case pickle.EMPTY_DICT:
                stack.append({})
            case pickle.SETITEM | pickle.SETITEMS:
                items = pop_last(2) if code == pickle.SETITEM else pop_to_mark()
                _set_items(stack[-1], items)
            case pickle.BINPUT | pickle.LONG_BINPUT:
                memo[_read_number(stream, 1 if code == pickle.BINPUT else 4)] = stack[-1]
            case pickle.BINGET | pickle.LONG_BINGET:
                stack.append(memo[_read_number(stream, 1 if code == pickle.BINGET else 4)])
            case pickle.GLOBAL:
                name = f"{_read_line(stream)} {_read_line(stream)}"
                if name not in KNOWN:
                    raise DataError(f"asks for {show_value(name)}; expected tensors alone.")
                stack.append(_Global(name))
            case pickle.BINPERSID:
                stack.append(_storage_from(stack.pop()))
            case pickle.REDUCE:
                arguments = stack.pop()
                stack.append(_call(stack.pop(), arguments))
            case pickle.BUILD:  # a dictionary's metadata, which no tensor needs
                stack.pop()
            case _:
                raise DataError(f"has the pickle instruction {code!r}; expected tensors alone.")
    raise ValueError("a pickle has no end")


def _read(stream: io.BytesIO, count: int) -> bytes:
    found = stream.read(count)
    if len(found) < count:
        raise ValueError("a pickle has no end")
    return found


def _read_number(stream: io.BytesIO, count: int, *, signed: bool = False) -> int:
    return int.from_bytes(_read(stream, count), "little", signed=signed)


def _read_line(stream: io.BytesIO) -> str:
    return stream.readline().decode().rstrip("\n")


def _set_items(target: Any, items: list[Any]) -> None:
    if not isinstance(target, dict) or not all(isinstance(key, str) for key in items[::2]):
        raise TypeError("expected a dictionary of names")
    target.update(zip(items[::2], items[1::2], strict=True))


def _call(function: Any, arguments: Any) -> Any:
    """Return the dictionary or tensor that a REDUCE instruction builds."""
    if function == _Global(DICTIONARY) and arguments == ():
        return {}
    if function != _Global(TENSOR):
        raise DataError("calls what it does not say; expected tensors alone.")
    storage, offset, shape, strides = arguments[:4]
    if not isinstance(storage, _Storage) or not len(shape) == len(strides) <= MAX_RANK:
        raise TypeError("a tensor has no storage, or more dimensions than it may")
    if not all(type(n) is int and 0 <= n <= MAX_BYTES for n in (offset, *shape, *strides)):
        raise TypeError("a tensor has sizes that are no counts")
    return _Tensor(storage, offset, tuple(shape), tuple(strides))


def _storage_from(identity: Any) -> _Storage:
    """Return the storage of a persistent id ``("storage", type, key, device, length, None)``."""
    kind, storage_type, key, _, length, view = identity
    dtype = DTYPES.get(storage_type.name) if isinstance(storage_type, _Global) else None
    named = kind == "storage" and isinstance(key, str) and type(length) is int
    if dtype is None or not named or view is not None:
        raise TypeError("a storage is declared in another way")
    return _Storage(key, dtype, length)
