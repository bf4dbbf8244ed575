"""Checks of weights files before they are read: sizes, links, kinds of values.

An HDF5 file may link to other files, and may declare terabytes that it does not contain. So may a
zip archive. The size to read is bounded by the size on disk.
"""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Iterator
from math import prod
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import Any

import h5py

from lesiontk.errors import DataError

MAX_BYTES = 8 * 2**30
MAX_OBJECTS = 100_000
MAX_ATTRIBUTE = 2**31
"""Bytes; a thousand names beside a config of a megabyte may take half."""
MAX_RATIO = 200
"""Maximum compression ratio. Keras does not compress, a user may; zeros shrink most."""
SLACK = 2**20
_PLAIN = (
    h5py.h5t.TypeStringID,
    h5py.h5t.TypeIntegerID,
    h5py.h5t.TypeFloatID,
    h5py.h5t.TypeEnumID,
)
"""Attribute types whose values are stored inline, except texts of variable length."""
_HEAP = b"GCOL\1\0\0\0"


def read_member(archive: zipfile.ZipFile, name: str, limit: int) -> bytes:
    """Return a member of at most `limit` bytes. Raises `KeyError` if missing or duplicate."""
    found = _find_member(archive, name)
    if found.file_size > limit:
        raise DataError(
            f"{Path(archive.filename or '').name} contains {found.file_size:,} bytes of {name}; "
            f"expected at most {limit:,}."
        )
    return archive.read(found)  # it never returns more than declared


def extract_member(archive: zipfile.ZipFile, name: str, to: Path) -> Path:
    """Write a member to the file `to`; errors as `read_member`, and for a compression bomb."""
    found = _find_member(archive, name)
    size = Path(archive.filename or "").stat().st_size
    _check_ratio(found.file_size, min(found.compress_size, size), name)
    with archive.open(found) as source, to.open("wb") as target:
        shutil.copyfileobj(source, target, 2**20)
    return to


def _find_member(archive: zipfile.ZipFile, name: str) -> zipfile.ZipInfo:
    found = [info for info in archive.infolist() if info.filename == name]
    if len(found) != 1:
        raise KeyError(f"{len(found)} members {name}")
    return found[0]


def count_elements(file: h5py.File, name: str) -> int:
    """Return how many numbers an HDF5 file contains.

    Raises `DataError` if it links to other files, contains values other than numbers, or declares
    more than it stores.
    """
    elements = size = 0
    for key, item in _list_datasets(file, name):
        _check_dataset(item, f"{key[:60]!r} of {name}")
        elements += item.size
        size += item.nbytes
    _check_ratio(size, Path(file.filename).stat().st_size, name)
    return elements


def bytes_beside_arrays(file: h5py.File, name: str) -> int:
    """Return the bytes of an HDF5 file that are not arrays: texts and its own structures."""
    arrays = [item for _, item in _list_datasets(file, name) if isinstance(item, h5py.Dataset)]
    stored = sum(item.id.get_storage_size() for item in arrays)
    return max(0, Path(file.filename).stat().st_size - int(stored))


def _check_attributes(group: Any, name: str, longest: int) -> None:
    """Raise `DataError` for texts that may take more memory than a file of their size.

    Texts of variable length are stored outside the attribute, and a thousand may share one there.
    `longest` is the maximum length of one.
    """
    for index in range(h5py.h5a.get_num_attrs(group.id)):
        attribute = h5py.h5a.open(group.id, index=index)
        kind, count = attribute.get_type(), prod(attribute.shape or ())
        if not isinstance(kind, _PLAIN):
            raise DataError(f"{name} has an attribute of lists; expected text and numbers.")
        varies = isinstance(kind, h5py.h5t.TypeStringID) and kind.is_variable_str()
        size = count * (longest if varies else kind.get_size())
        if size > MAX_ATTRIBUTE:
            raise DataError(
                f"{name} has an attribute of {count:,} values, which may take {size:,} bytes; "
                f"expected at most {MAX_ATTRIBUTE:,}."
            )


def _longest_text(path: Path) -> int:
    """Return the size of the largest heap of variable-length texts in an HDF5 file.

    Source: HDF5 File Format Specification 3.0, III.E: mark, version 1, three zeros, size.
    """
    largest, at, size = 0, -1, path.stat().st_size
    with path.open("rb") as stream, mmap(stream.fileno(), 0, access=ACCESS_READ) as content:
        while (at := content.find(_HEAP, at + 1)) >= 0:
            stated = int.from_bytes(content[at + len(_HEAP) : at + len(_HEAP) + 8], "little")
            largest = max(largest, min(stated, size))
    return largest


def _list_datasets(file: h5py.File, name: str) -> Iterator[tuple[str, Any]]:
    objects, longest = 0, _longest_text(Path(file.filename))
    waiting: list[Any] = [file]
    seen: set[Any] = set()
    while waiting:
        group = waiting.pop()
        _check_attributes(group, name, longest)
        for key in group:
            objects += 1
            if objects > MAX_OBJECTS:
                raise DataError(
                    f"{name} contains more than {MAX_OBJECTS:,} objects; expected fewer."
                )
            if not isinstance(group.get(key, getlink=True), h5py.HardLink):
                raise DataError(f"{name} links elsewhere with {key[:60]!r}; expected the weights.")
            item = group[key]
            if not isinstance(item, h5py.Group):
                yield key, item
                continue
            address = h5py.h5o.get_info(item.id).addr
            if address in seen:
                raise DataError(f"{name} contains {key[:60]!r} in itself; expected a tree.")
            seen.add(address)
            waiting.append(item)


def _check_dataset(item: Any, where: str) -> None:
    if not isinstance(item, h5py.Dataset) or item.shape is None:
        raise DataError(f"{where} is not an array of numbers.")
    if item.external or item.is_virtual:
        raise DataError(f"{where} is in another file; expected it in this one.")
    if item.dtype.kind not in "fiub":
        raise DataError(f"{where} contains values of {item.dtype}; expected numbers.")
    # HDF5 decompresses a whole chunk, which may be larger than the array.
    chunk = prod(item.chunks or ()) * item.dtype.itemsize
    _check_ratio(max(item.nbytes, chunk), item.id.get_storage_size(), where)


def _check_ratio(size: int, stored: int, where: str) -> None:
    if size > MAX_BYTES or size > MAX_RATIO * stored + SLACK:
        raise DataError(
            f"{where} declares {size:,} bytes, but {stored:,} are stored; expected as many, and at "
            f"most {MAX_BYTES:,}."
        )
