"""Peak memory of a process that loads and runs one engine.

Run as ``python -m lesiontk.bench.memory ENGINE [DESCRIPTION]``; prints bytes. It is that of the
whole process: interpreter, runtime libraries and engine, as on a device.
"""

from __future__ import annotations

import json
import resource
import sys
from pathlib import Path

import numpy as np

from lesiontk.backends import open_any
from lesiontk.backends.foreign import ForeignDescription
from lesiontk.bench.exit_code import exit_as_lesiontk


def measure_peak_memory(path: str, foreign: ForeignDescription | None = None) -> int:
    """Return the peak resident bytes of this process after three predictions."""
    with open_any(Path(path), foreign) as engine:
        image = np.zeros((1, *engine.spec.input_shape), np.uint8)
        for _ in range(3):
            engine.infer(image)
    status = Path("/proc/self/status")
    if status.is_file():  # Linux's ru_maxrss also counts the process that started this one
        line = next(x for x in status.read_text().splitlines() if x.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


if __name__ == "__main__":
    with exit_as_lesiontk():
        described = [ForeignDescription.from_document(json.loads(text)) for text in sys.argv[2:]]
        sys.stdout.write(f"{measure_peak_memory(sys.argv[1], *described)}\n")
