"""Check of a workspace's internal files: a link there would redirect its writes.

A workspace may be passed on. Locks, scratch folders and temporary files are written without
checking what exists there, so a symbolic link would truncate the file that it points to, and a
named pipe would block.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from lesiontk.errors import DataError
from lesiontk.store.manifest import MANIFEST

WALKED = (".locks", ".scratch", "searches", "workers")
"""Folders of a workspace whose content is internal, too."""


def check_own_files(workspace: Path) -> None:
    """Raise `DataError` for a link, a pipe or a device where the workspace writes.

    Artefacts themselves may be links: nothing is written through one.
    """
    for path in _list_own(workspace):
        with suppress(FileNotFoundError, NotADirectoryError):
            mode = path.lstat().st_mode
            if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
                kind = "a symbolic link" if stat.S_ISLNK(mode) else "a pipe, a socket or a device"
                raise DataError(
                    f"{path} is {kind}; expected a regular file or folder. Remove "
                    "it, and use a workspace of others only if you trust them."
                )


def _list_own(workspace: Path) -> Iterator[Path]:
    if not workspace.is_dir():
        return
    for path in workspace.iterdir():
        if path.name.startswith(".") or path.name in WALKED:
            yield path
        else:
            yield path / f"{MANIFEST}.tmp"
    for name in WALKED:
        for folder, inner, files in os.walk(workspace / name):
            yield from (Path(folder) / each for each in (*inner, *files))
