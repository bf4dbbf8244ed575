"""A temporary folder for each run; what killed runs left is removed by the next one.

TensorFlow writes its traced Python functions into the temporary folder and removes them when the
process ends, which a killed one never does.
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
    """Give this process, and those that it starts, a temporary folder that ends with it.

    Where none can be made, the common one stays: what needs it says so.
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

    The lock ends with the process, however it ends: a folder whose lock is free belonged to one
    that is dead. The lock of `root` lets nobody see a folder that has no lock yet.
    """
    with suppress(FileExistsError):
        root.mkdir(mode=0o700)
    status = root.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid():
        raise PermissionError(f"{root} belongs to somebody else")
    gate = lock_folder(root, fcntl.LOCK_EX)
    try:
        for left in root.glob("run-*"):
            with suppress(OSError):
                descriptor = lock_folder(left, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(left, ignore_errors=True)
                os.close(descriptor)
        folder = Path(tempfile.mkdtemp(prefix="run-", dir=root))
        return folder, lock_folder(folder, fcntl.LOCK_EX)
    finally:
        os.close(gate)
