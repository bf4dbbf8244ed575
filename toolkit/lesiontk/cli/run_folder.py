"""A temporary folder for each run; the next run removes those of killed runs.

TensorFlow writes its traced Python functions into the temporary folder and removes them when the
process ends, unless it is killed.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from lesiontk.files.folder_lock import lock_folder


@contextmanager
def own_temporary_folder() -> Iterator[None]:
    """Give this process and its children a temporary folder that is removed at the end.

    If none can be made, the default one is kept: its users raise the error.
    """
    before = os.environ.get("TMPDIR"), tempfile.tempdir
    try:
        folder, descriptor = _make_folder(Path(tempfile.gettempdir()) / f"lesiontk-{os.getuid()}")
    except OSError:
        yield
        return
    os.environ["TMPDIR"] = tempfile.tempdir = str(folder)
    try:
        yield
    finally:
        os.environ.pop("TMPDIR")
        if before[0] is not None:
            os.environ["TMPDIR"] = before[0]
        tempfile.tempdir = before[1]
        shutil.rmtree(folder, ignore_errors=True)
        os.close(descriptor)


def _make_folder(root: Path) -> tuple[Path, int]:
    """Return a new folder below `root` and the descriptor that holds its lock.

    The lock is released when the process exits: a folder whose lock is free belongs to a dead
    process. The lock of `root` hides a folder that has no lock yet.
    """
    with suppress(FileExistsError):
        root.mkdir(mode=0o700)
    status = root.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid():
        raise PermissionError(f"{root} belongs to another user")
    gate = lock_folder(root, fcntl.LOCK_EX)
    try:
        for previous in root.glob("run-*"):
            with suppress(OSError):
                descriptor = lock_folder(previous, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(previous, ignore_errors=True)
                os.close(descriptor)
        folder = Path(tempfile.mkdtemp(prefix="run-", dir=root))
        return folder, lock_folder(folder, fcntl.LOCK_EX)
    finally:
        os.close(gate)
