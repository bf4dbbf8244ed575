"""Interleaved single-image latency of several engines in a separate process.

Run as ``python -m lesiontk.bench.latency REQUEST.json RESULT.json``. A separate process has no
thread pools or caches of earlier work; interleaving distributes the machine's other load over all
engines equally.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lesiontk.backends.backend import Engine
from lesiontk.backends.execution import Execution
from lesiontk.backends.foreign import RECIPE, ForeignDescription
from lesiontk.bench.exit_code import exit_as_lesiontk
from lesiontk.document import Record, plain_value


@dataclass(frozen=True, slots=True, kw_only=True)
class TimingRequest(Record):
    """What to time: `engines` by name and `images`, uint8 [N, S, S, 3], are files.

    `foreign` describes the engines without a description.
    """

    engines: Mapping[str, str]
    images: str
    rounds: int
    warmup: int
    threads: int
    provider: str | None = None
    foreign: ForeignDescription | None = None


@dataclass(frozen=True, slots=True)
class Timing(Record):
    """Raw latencies in ms, one per round; `execution` by the runtime; image size in pixels."""

    samples_ms: tuple[float, ...]
    execution: tuple[Execution, ...]
    image_size: int


def time_engines(request: TimingRequest) -> dict[str, Timing]:
    """Return engine name -> its latencies.

    Each round runs every engine on the same image, at its own size, and starts with another engine.
    """
    from lesiontk.backends import open_any
    from lesiontk.data.crop import crop_and_resize

    def open_engine(path: str) -> Engine:
        return open_any(
            Path(path), request.foreign, threads=request.threads, provider=request.provider
        )

    images = np.load(request.images)
    samples: dict[str, list[float]] = {name: [] for name in request.engines}
    with ExitStack() as stack:
        opened = [
            (name, stack.enter_context(open_engine(path))) for name, path in request.engines.items()
        ]
        sizes = {name: engine.spec.preprocessing.image_size for name, engine in opened}
        fitted = {
            size: np.stack([crop_and_resize(image, size, "stretch") for image in images])
            for size in set(sizes.values())
        }
        for name, engine in opened:
            image = fitted[sizes[name]][:1]
            if engine.spec.recipe == RECIPE:
                engine.infer(image)  # the latency is the same with logits
            else:
                engine.predict(image)  # a damaged engine is not timed
        for turn in range(request.warmup + request.rounds):
            first = turn % len(opened)
            for name, engine in opened[first:] + opened[:first]:
                image = fitted[sizes[name]][turn % len(images)][np.newaxis]
                start = time.perf_counter_ns()
                engine.infer(image)
                elapsed = (time.perf_counter_ns() - start) / 1e6
                if turn >= request.warmup:
                    samples[name].append(elapsed)
        return {
            name: Timing(tuple(samples[name]), engine.describe_execution(), sizes[name])
            for name, engine in opened
        }


def main(file: Path, result: Path) -> None:
    """Read a request, time its engines, write their timings."""
    request = TimingRequest.from_document(json.loads(file.read_text()))
    # TensorFlow reads its number of threads before its first operation.
    os.environ["TF_NUM_INTRAOP_THREADS"] = str(request.threads)
    os.environ["TF_NUM_INTEROP_THREADS"] = "1"
    result.write_text(json.dumps(plain_value(time_engines(request))))


if __name__ == "__main__":
    with exit_as_lesiontk():
        main(Path(sys.argv[1]), Path(sys.argv[2]))
