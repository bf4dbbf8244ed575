"""Errors of a full or read-only disk, raised before the work where the size is known."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from lesiontk.errors import MissingRequirementError, StorageError

_PROBLEMS = {
    errno.ENOSPC: "is full",
    errno.EDQUOT: "is full: your quota is used up",
    errno.EFBIG: "does not support files of this size",
    errno.EROFS: "is read-only",
}


def reserve_space(stream: BinaryIO, path: Path, size: int) -> None:
    """Allocate `size` bytes on disk for an open file, so that writing to it cannot fail.

    Without this, a memory-mapped file kills the process when the disk is full. Raises
    `MissingRequirementError` with the bytes needed and free.
    """
    stream.flush()
    try:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(stream.fileno(), 0, size)
        else:  # macOS
            stream.seek(0, os.SEEK_END)
            while (missing := size - stream.tell()) > 0:
                stream.write(bytes(min(missing, 1 << 20)))
            stream.flush()
    except OSError as error:
        if error.errno not in _PROBLEMS:
            raise
        raise StorageError(
            f"{path.name} needs {_megabytes(size)} in {path.parent}, whose disk "
            f"{_PROBLEMS[error.errno]}: {_free(path.parent)}. Free some space, or specify "
            "a workspace on another disk with --workspace."
        ) from error


def explain_disk_error(error: BaseException, workspace: Path) -> MissingRequirementError | None:
    """Return the error of the workspace's disk if it caused the failure, else None.

    TensorFlow and HDF5 raise errors of their own, whose text contains the system's message.
    """
    if not workspace.is_dir():
        return StorageError(
            f"the workspace {workspace} was removed or moved while it was in use. "
            "Run the same command again."
        )
    for cause in _causes(error):
        code = getattr(cause, "errno", None)
        problem = next(
            (problem for number, problem in _PROBLEMS.items()
             if code == number or os.strerror(number) in str(cause)),
            None,
        )  # fmt: skip
        if problem and isinstance(error, MissingRequirementError):
            return error  # it is more specific
        if problem:
            names = (getattr(cause, key, None) for key in ("filename2", "filename"))
            named = Path(str(next(filter(None, names), workspace)))  # the target of a copy first
            folder = next((p for p in (named, *named.parents) if p.is_dir()), workspace)
            return StorageError(
                f"the disk of {folder} {problem}: {_free(folder)}. Free some space, or specify a "
                "folder on another disk (--workspace, --out), and run the same command again."
            )
    return None


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _free(folder: Path) -> str:
    return f"{_megabytes(shutil.disk_usage(folder).free)} are free"


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"
