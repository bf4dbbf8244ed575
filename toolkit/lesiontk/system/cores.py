"""The number of cores that this process may use."""

from __future__ import annotations

import os


def count_cores() -> int:
    """Return the number of cores available to this process; the machine may have more.

    A container, a batch system or ``taskset`` may restrict them. Runtimes with more threads than
    cores slow down.
    """
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
