"""Measurement of engine files: latency and memory in separate processes, size on disk."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lesiontk.backends.execution import Execution, find_fallback
from lesiontk.backends.foreign import ForeignDescription
from lesiontk.bench.benchmark import Latency
from lesiontk.bench.latency import Timing, TimingRequest
from lesiontk.bench.speed import Speedup, estimate_speedup
from lesiontk.document import write_record
from lesiontk.errors import DataError, MissingRequirementError
from lesiontk.evaluate.device_gate import DeviceFigures
from lesiontk.progress import Progress
from lesiontk.recipe import BenchRule


@dataclass(frozen=True, slots=True)
class Measurement:
    """Raw latencies in ms, one per round; bytes of the file and of memory; execution.

    `execution` is empty if a runtime has only one provider.
    """

    samples_ms: tuple[float, ...]
    size_bytes: int
    peak_memory_bytes: int
    execution: tuple[Execution, ...] = ()
    deflated_bytes: int = 0
    image_size: int = 0

    @property
    def latency(self) -> Latency:
        """The percentiles of the latencies."""
        p10, median, p90 = (
            round(float(np.percentile(self.samples_ms, rank)), 4) for rank in (10, 50, 90)
        )
        return Latency(median, p90, len(self.samples_ms), p10)

    @property
    def fallback(self) -> Execution | None:
        """The runtime that ran instead of the requested one; None if that ran."""
        return find_fallback(self.execution)

    def compare_speed(self, parent: Measurement, confidence: float) -> Speedup | None:
        """Return the speed-up over a parent that was timed in the same rounds.

        None if either was emulated, because its latency is that of another program.
        """
        if self.fallback or parent.fallback:
            return None
        return estimate_speedup(parent.samples_ms, self.samples_ms, confidence)

    def device_figures(self) -> DeviceFigures:
        """Return the input of gates on latency, size and memory."""
        fallback = self.fallback
        emulated = (
            f"{fallback.used} ran instead of {fallback.asked}, so its latency says nothing here"
            if fallback
            else ""
        )
        return DeviceFigures(self.samples_ms, self.size_bytes, self.peak_memory_bytes, emulated)

    def row_fields(self) -> dict[str, Any]:
        """Return its fields of an `EngineRow`."""
        return {
            "image_size": self.image_size,
            "latency_ms": self.latency,
            "size_bytes": self.size_bytes,
            "deflated_bytes": self.deflated_bytes,
            "peak_memory_bytes": self.peak_memory_bytes,
            "execution": self.execution,
        }


def deflated_bytes(path: Path) -> int:
    """Return the size of a file after zip compression, as for a download."""
    return len(zlib.compress(path.read_bytes(), 6))


def measure_engines(
    engines: Mapping[str, Path],
    images: NDArray[np.uint8],
    rule: BenchRule,
    progress: Progress,
    foreign: ForeignDescription | None = None,
) -> dict[str, Measurement]:
    """Return engine name -> measurement; `images` uint8 [N, S, S, 3], of any size.

    `foreign` describes the files without a description.
    """
    timed = time_engines(engines, images, rule, progress, foreign)
    described = [] if foreign is None else [json.dumps(foreign.to_document())]
    memory = {}
    with progress.task("measuring memory", len(engines)) as advance:
        for name, path in engines.items():
            memory[name] = int(
                _run_module("lesiontk.bench.memory", str(path), *described).split()[-1]
            )
            advance(1)
    return {
        name: Measurement(
            timed[name].samples_ms,
            path.stat().st_size,
            memory[name],
            timed[name].execution,
            deflated_bytes(path),
            timed[name].image_size,
        )
        for name, path in engines.items()
    }


def time_engines(
    engines: Mapping[str, Path],
    images: NDArray[np.uint8],
    rule: BenchRule,
    progress: Progress,
    foreign: ForeignDescription | None = None,
) -> dict[str, Timing]:
    """Return engine name -> interleaved latencies; `images` as for `measure_engines`."""
    with tempfile.TemporaryDirectory() as folder, progress.task("timing", None):
        file, result, array = (Path(folder) / n for n in ("request", "result", "images.npy"))
        np.save(array, images)
        request = TimingRequest(
            engines={name: str(path) for name, path in engines.items()},
            images=str(array),
            foreign=foreign,
            **rule.model_dump(include={"rounds", "warmup", "threads", "provider"}),
        )
        write_record(file, request)
        _run_module("lesiontk.bench.latency", str(file), str(result))
        timed = json.loads(result.read_text())
    return {name: Timing.from_document(timed[name]) for name in engines}


def _run_module(module: str, *arguments: str) -> str:
    command = [sys.executable, "-W", "ignore", "-m", module, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        if done.returncode == DataError.exit_code:
            raise DataError(last)
        raise MissingRequirementError(
            f"the measuring process {module} ended with exit code {done.returncode}: {last}"
        )
    return done.stdout
