"""Access to the zip archives in a data source's folder."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path

from lesiontk.errors import DataError
from lesiontk.files.regular_file import check_regular

_BROKEN = (
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    KeyError,
    NotImplementedError,  # a compression method that this Python lacks
    RuntimeError,  # an encrypted member
    ValueError,
    OSError,
)


def list_members(path: Path) -> list[str]:
    """Return the names in an archive. Raises `DataError` if it cannot be opened."""
    check_regular(path, "archive")
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.namelist()
    except _BROKEN as error:
        raise _broken(path, error) from error


def read_member(
    path: Path, member: str, *, limit: int | None = None, first: int | None = None
) -> bytes:
    """Return a member's bytes: all, at most `limit` of them, or the `first` ones.

    Raises `DataError` for an archive or a member that cannot be read, or one of more than `limit`.
    """
    check_regular(path, "archive")
    try:
        with zipfile.ZipFile(path) as archive, archive.open(member) as stream:
            if first is not None:
                return stream.read(first)
            data = stream.read() if limit is None else stream.read(limit + 1)
    except _BROKEN as error:
        raise _broken(path, error) from error
    if limit is not None and len(data) > limit:
        raise DataError(f"{path}, {member}: more than {limit:,} bytes; expected a smaller file.")
    return data


def checksums(path: Path) -> dict[str, tuple[int, int]]:
    """Return member -> (bytes, CRC-32) from the archive's directory."""
    check_regular(path, "archive")
    try:
        with zipfile.ZipFile(path) as archive:
            return {info.filename: (info.file_size, info.CRC) for info in archive.infolist()}
    except _BROKEN as error:
        raise _broken(path, error) from error


def _broken(path: Path, error: Exception) -> DataError:
    return DataError(
        f"{path} cannot be opened as a zip archive ({error}); expected an intact archive. Fetch it "
        "again, or remove it from the folder."
    )
