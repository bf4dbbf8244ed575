"""Open a user's path only if it is a regular file, and read at most a bounded size.

A named pipe without a writer blocks the process that opens it, a device may never end, and a
symbolic link may lead to itself. Each is refused by name before anything is opened.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO

from lesiontk.errors import DataError

_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}
_REASONS = {
    errno.ENOENT: "does not exist",
    errno.ENOTDIR: "does not exist: a part of its path is a file",
    errno.ELOOP: "is a symbolic link that leads back to itself",
    errno.ENAMETOOLONG: "has a name that is too long",
    errno.EACCES: "cannot be read: permission denied",
    errno.EPERM: "cannot be read: permission denied",
    errno.EISDIR: "is a folder; expected a regular file",
    errno.ENXIO: "is a socket or a named pipe; expected a regular file",
}
SHOWN = 200
"""Characters of a path that an error shows."""


def check_regular(path: Path | str, what: str = "file") -> int:
    """Return the size in bytes of a regular file, links followed, without opening it.

    For libraries that open a path themselves; `open_regular` is safe against a path that changes
    meanwhile. Raises `DataError` if the path is missing or is not a regular file.
    """
    try:
        status = Path(path).stat()
    except (OSError, ValueError) as error:
        raise _unreadable(path, what, error) from error
    return _size_of(path, what, status)


def resolve_path(path: Path | str, what: str = "path") -> Path:
    """Return the path with all symbolic links resolved; it need not exist.

    Raises `DataError` for a symbolic link loop and for an invalid file name.
    """
    loop = OSError(errno.ELOOP, "")
    try:
        resolved = Path(path).resolve()
    except RuntimeError as error:  # what Path.resolve raises for a loop before Python 3.13
        raise _unreadable(path, what, loop) from error
    except (OSError, ValueError) as error:
        raise _unreadable(path, what, error) from error
    if any(part.is_symlink() for part in (resolved, *resolved.parents)):  # from 3.13 on
        raise _unreadable(path, what, loop)
    return resolved


def open_regular(path: Path | str, what: str = "file", *, limit: int | None = None) -> BinaryIO:
    """Return a regular file opened for reading in binary mode; a context manager.

    `what` names it in errors ("recipe", "picture"). Raises `DataError` if the path is missing, is
    not a regular file, cannot be read, or is larger than `limit` bytes.
    """
    check_regular(path, what)
    try:
        # O_NONBLOCK: the path may have become a pipe since it was checked.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError as error:
        raise _unreadable(path, what, error) from error
    try:
        size = _size_of(path, what, os.fstat(descriptor))
        if limit is not None and size > limit:
            raise _too_large(path, what, f"{size:,}", limit)
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def read_regular(path: Path | str, what: str = "file", *, limit: int) -> bytes:
    """Return the bytes of a regular file of at most `limit` bytes; raises as `open_regular`."""
    with open_regular(path, what, limit=limit) as stream:
        try:
            content = stream.read(limit + 1)  # the file may grow while it is read
        except OSError as error:
            raise _unreadable(path, what, error) from error
    if len(content) > limit:
        raise _too_large(path, what, "more", limit)
    return content


def read_regular_text(path: Path | str, what: str = "file", *, limit: int) -> str:
    """Return the text of a UTF-8 file without its byte order mark.

    Raises as `read_regular`, and `DataError` for invalid UTF-8.
    """
    try:
        return read_regular(path, what, limit=limit).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{what} {_shown(path)} is not valid UTF-8 (byte {error.start}); expected UTF-8 text."
        ) from error


def _size_of(path: Path | str, what: str, status: os.stat_result) -> int:
    if not stat.S_ISREG(status.st_mode):
        kind = _KINDS.get(stat.S_IFMT(status.st_mode), "not a file")
        raise DataError(f"{what} {_shown(path)} is {kind}; expected a regular file.")
    return status.st_size


def _unreadable(path: Path | str, what: str, error: OSError | ValueError) -> Exception:
    """Return the `DataError` for an invalid path, or any other error unchanged."""
    if isinstance(error, ValueError):  # a null byte
        return DataError(f"{what} {_shown(path)} is not a valid file name.")
    reason = _REASONS.get(error.errno or 0)
    return DataError(f"{what} {_shown(path)} {reason}.") if reason else error


def _too_large(path: Path | str, what: str, size: str, limit: int) -> DataError:
    return DataError(f"{what} {_shown(path)} has {size} bytes; expected at most {limit:,}.")


def _shown(path: Path | str) -> str:
    text = str(path)
    text = text if len(text) <= SHOWN else f"{text[: SHOWN // 2]}…{text[-SHOWN // 2 :]}"
    return text if text.isprintable() else repr(text)
