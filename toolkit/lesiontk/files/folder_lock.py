"""A folder lock that is released when its process exits, even if it is killed."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


def lock_folder(folder: Path, how: int) -> int:
    """Return a descriptor that holds the lock of `folder` until it is closed.

    `how` is the operation of ``fcntl.flock``. Raises `BlockingIOError` where another process holds
    the lock and `how` has ``LOCK_NB``, `OSError` for a link.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, how)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


@contextmanager
def hold_folder(folder: Path, before_waiting: Callable[[], None]) -> Iterator[None]:
    """Hold the lock of `folder`; call `before_waiting` if another process holds it."""
    folder = folder.resolve()
    try:
        descriptor = lock_folder(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        before_waiting()
        descriptor = lock_folder(folder, fcntl.LOCK_EX)
    try:
        yield
    finally:
        os.close(descriptor)
