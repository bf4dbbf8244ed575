"""How many cores this process may use."""

from __future__ import annotations

import os


def count_cores() -> int:
    """Return the cores that the system lets this process use, which may be fewer than it has.

    A container, a batch system or ``taskset`` restricts them. Runtimes whose threads outnumber them
    wait for each other.
    """
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
