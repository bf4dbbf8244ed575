"""Tuning of the C library's malloc for large arrays."""

from __future__ import annotations

import ctypes
import sys
from contextlib import suppress

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD = -1, -2, -3
"""Parameters of glibc's mallopt(3)."""

KEPT = 2**31 - 1
LARGEST = 32 * 2**20
"""The largest threshold that glibc accepts; a layer's activations for one image are smaller."""


def keep_freed_memory() -> None:
    """Let the process reuse the memory of freed arrays instead of returning it each time.

    By default each array above 128 kB is mapped anew, and the kernel zeroes its pages again.
    Reading all activations of a large network, image after image, spends half its time on that.
    Does nothing where the C library is not glibc.
    """
    if not sys.platform.startswith("linux"):
        return
    with suppress(AttributeError, OSError):
        library = ctypes.CDLL(None)
        library.mallopt(M_MMAP_THRESHOLD, LARGEST)
        library.mallopt(M_TRIM_THRESHOLD, KEPT)
        library.mallopt(M_TOP_PAD, 64 * 2**20)
