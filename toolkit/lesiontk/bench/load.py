"""Memory and load time of a process that loads and runs one engine.

Run as ``python -m lesiontk.bench.load ENGINE PROVIDER [DESCRIPTION]``, with an empty provider for
the runtime's own choice; prints a `Load` as JSON. Peak memory is that of the whole process:
interpreter, runtime libraries and engine, as on a device.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lesiontk.backends import open_any
from lesiontk.backends.foreign import ForeignDescription
from lesiontk.bench.exit_code import exit_as_lesiontk
from lesiontk.document import Record

REOPENED = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Load(Record):
    """What it takes to load an engine in a process of its own.

    `first_ms` is the time from a process with NumPy to the first answer: it imports the runtime
    and opens the engine. `again_ms` are the times when the engine is opened again, the runtime
    being loaded. `idle_bytes` of memory are resident before, `resident_bytes` after three answers,
    `peak_bytes` at most; the first two are None where the system has no ``/proc``.
    """

    first_ms: float
    again_ms: tuple[float, ...]
    idle_bytes: int | None
    resident_bytes: int | None
    peak_bytes: int

    @property
    def above_idle_bytes(self) -> int | None:
        """What the runtime and the engine add to the memory of an idle process."""
        if self.resident_bytes is None or self.idle_bytes is None:
            return None
        return self.resident_bytes - self.idle_bytes


def measure_load(
    path: str, provider: str | None = None, foreign: ForeignDescription | None = None
) -> Load:
    """Return what loading an engine takes in this process, from which nothing was run yet."""

    def load(answers: int) -> float:
        start = time.perf_counter()
        with open_any(Path(path), foreign, provider=provider) as engine:
            image = np.zeros((1, *engine.spec.input_shape), np.uint8)
            engine.infer(image)
            elapsed = 1000 * (time.perf_counter() - start)
            for _ in range(answers - 1):
                engine.infer(image)
            resident.append(_read_status("VmRSS"))
        return elapsed

    resident: list[int | None] = [_read_status("VmRSS")]
    first = load(3)
    peak = _read_status("VmHWM")  # Linux's ru_maxrss also counts the process that started this one
    if peak is None:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        peak *= 1 if sys.platform == "darwin" else 1024
    return Load(
        first_ms=first,
        again_ms=tuple(load(1) for _ in range(REOPENED)),
        idle_bytes=resident[0],
        resident_bytes=resident[1],
        peak_bytes=peak,
    )


def _read_status(name: str) -> int | None:
    """Return the bytes of a line of ``/proc/self/status``."""
    status = Path("/proc/self/status")
    if not status.is_file():
        return None
    line = next(x for x in status.read_text().splitlines() if x.startswith(name))
    return int(line.split()[1]) * 1024


if __name__ == "__main__":
    with exit_as_lesiontk():
        described = [ForeignDescription.from_document(json.loads(text)) for text in sys.argv[3:]]
        found = measure_load(sys.argv[1], sys.argv[2] or None, *described)
        sys.stdout.write(json.dumps(found.to_document()) + "\n")
