"""Memory of freed arrays is used again, so that the kernel need not clear its pages again."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

PROGRAM = """
import resource, sys
import numpy as np
from lesiontk.system.malloc_tuning import keep_freed_memory
if sys.argv[1] == "keep":
    keep_freed_memory()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):  # as many activations are read, and dropped with the next image
    activations = [np.ones(1_000_000, np.float32) for _ in range(30)]
    del activations
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's allocator")
def test_freed_arrays_cost_no_new_pages() -> None:
    faults = {
        way: int(
            subprocess.run(
                [sys.executable, "-c", PROGRAM, way], capture_output=True, text=True, check=True
            ).stdout
        )
        for way in ("default", "keep")
    }
    assert faults["keep"] < 0.3 * faults["default"]
