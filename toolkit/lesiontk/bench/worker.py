"""A process that times one engine, on request.

Run as ``python -m lesiontk.bench.worker REQUEST.json``. It has no thread pools or caches of other
engines. Each line of standard input is a command: ``round`` prints the samples of one round,
``path`` those of the path from file to answer. The first reply says how the engine was warmed up.
"""

from __future__ import annotations

import json
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from lesiontk.backends.backend import Engine
from lesiontk.backends.execution import Execution
from lesiontk.backends.foreign import RECIPE, ForeignDescription
from lesiontk.bench.exit_code import exit_as_lesiontk
from lesiontk.bench.timing import OFFLINE
from lesiontk.document import Record

ROUND, PATH = "round", "path"
"""The commands."""
STABLE = 0.05
"""Medians of warm-up windows that differ by at most this share are equal."""
EQUAL_WINDOWS = 3
"""The warm-up ends when so many windows in a row have equal medians."""
WARMUP_S = 10.0
"""The longest warm-up."""
ROUND_S = 0.5
"""The longest round of an engine, unless one query takes longer."""
UNTIMED = 1
"""The queries before the timed ones of a round; they find data of other engines in the cache."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TimingRequest(Record):
    """An engine to time in a `scenario`; `images`, uint8 [N, S, S, 3], is a file.

    `foreign` describes an engine without a description. `pictures` are files to time the path from
    file to answer on. A round has `queries` queries, a window of the warm-up at least `warmup`
    images; a query is `batch` images at once. Offline, an engine that runs one image at a time is
    opened `threads` times.
    """

    engine: str
    images: str
    scenario: str
    threads: int
    queries: int
    warmup: int
    batch: int = 1
    provider: str | None = None
    foreign: ForeignDescription | None = None
    pictures: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready(Record):
    """What runs after the warm-up: as in `Timing`, with `queries` in a round."""

    threads: int
    streams: int
    batch: int
    queries: int
    warmup: int
    warmed_up: bool
    execution: tuple[Execution, ...]
    image_size: int


@dataclass(frozen=True, slots=True)
class RoundSamples(Record):
    """The ms of the queries of a round, or of the parts of the path of each picture, and the CPU
    seconds it took."""

    samples_ms: tuple[tuple[float, ...], ...]
    cpu_s: float


class Worker:
    """An engine that is timed in this process. A context manager."""

    def __init__(self, request: TimingRequest) -> None:
        from lesiontk.data.crop import crop_and_resize

        self._request = request
        self._stack = ExitStack()
        self._engines = self._open_engines()
        engine = self._engines[0]
        self._size = engine.spec.preprocessing.image_size
        images = np.load(request.images)
        self._images = np.stack([crop_and_resize(i, self._size, "stretch") for i in images])
        self._batch = request.batch
        self._turn = 0
        self._picture = 0
        if len(self._engines) > 1:
            self._pool = self._stack.enter_context(ThreadPoolExecutor(len(self._engines)))
        if engine.spec.recipe == RECIPE:
            engine.infer(self._images[:1])  # the latency is the same with logits
        else:
            engine.predict(self._images[:1])  # a damaged engine is not timed
        self.ready = self._warm_up()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stack.close()

    def run_round(self) -> RoundSamples:
        """Return the samples of the next round, after queries that are not timed."""
        before = time.process_time()
        for _ in range(UNTIMED):
            self._query()
        samples = tuple((self._query(),) for _ in range(self.ready.queries))
        return RoundSamples(samples, time.process_time() - before)

    def run_path(self) -> RoundSamples:
        """Return the samples of the next pictures, at most as many as queries in a round."""
        before = time.process_time()
        known = self._request.pictures
        pictures = [
            known[(self._picture + number) % len(known)]
            for number in range(min(self.ready.queries, len(known)))
        ]
        self._picture += len(pictures)
        samples = tuple(self._time_path(Path(name)) for name in pictures)
        return RoundSamples(samples, time.process_time() - before)

    def _open_engines(self) -> list[Engine]:
        request = self._request
        if request.scenario != OFFLINE:
            return [self._open(request.threads)]
        first = self._open(1)
        if not first.batches:
            return [first, *(self._open(1) for _ in range(request.threads - 1))]
        first.close()
        return [self._open(request.threads)]

    def _open(self, threads: int) -> Engine:
        from lesiontk.backends import open_any

        request = self._request
        return self._stack.enter_context(
            open_any(
                Path(request.engine), request.foreign, threads=threads, provider=request.provider
            )
        )

    def _query(self) -> float:
        """Return the ms of the next query."""
        rows = (self._turn + np.arange(self._batch)) % len(self._images)
        images = self._images[rows]
        self._turn += self._batch
        start = time.perf_counter_ns()
        self._infer(images)
        return (time.perf_counter_ns() - start) / 1e6

    def _infer(self, images: NDArray[np.uint8]) -> None:
        if len(self._engines) == 1:
            self._engines[0].infer(images)
        else:
            parts = np.array_split(images, len(self._engines))
            list(self._pool.map(lambda engine, part: engine.infer(part), self._engines, parts))

    def _time_path(self, path: Path) -> tuple[float, ...]:
        """Return the ms of decoding, of crop and resize, of inference, and of the whole."""
        from lesiontk.data.pictures import read_picture
        from lesiontk.data.preprocess import preprocess_image

        engine = self._engines[0]
        clock = time.perf_counter_ns
        start = clock()
        picture = read_picture(path)
        decoded = clock()
        image = preprocess_image(picture, engine.spec.preprocessing)
        resized = clock()
        engine.infer(image[np.newaxis])
        end = clock()
        parts = (decoded - start, resized - decoded, end - resized, clock() - start)
        return tuple(part / 1e6 for part in parts)

    def _warm_up(self) -> Ready:
        window = max(2, -(-self._request.warmup // self._batch))
        start = time.monotonic()
        count, equal, median = 0, 1, float("inf")
        while equal < EQUAL_WINDOWS and (not count or time.monotonic() - start < WARMUP_S):
            before, median = median, float(np.median([self._query() for _ in range(window)]))
            equal = equal + 1 if abs(median / before - 1) <= STABLE else 1
            count += window
        for picture in self._request.pictures[:1]:
            self._time_path(Path(picture))
        engine = self._engines[0]
        offline_streams = len(self._engines) > 1
        return Ready(
            threads=1 if offline_streams else self._request.threads,
            streams=len(self._engines),
            batch=self._batch,
            queries=max(1, min(self._request.queries, int(1000 * ROUND_S / median))),
            warmup=count,
            warmed_up=equal >= EQUAL_WINDOWS,
            execution=engine.describe_execution(),
            image_size=self._size,
        )


def set_threads(threads: int) -> None:
    """Set TensorFlow's number of threads, which it reads before its first operation."""
    os.environ["TF_NUM_INTRAOP_THREADS"] = str(threads)
    os.environ["TF_NUM_INTEROP_THREADS"] = "1"


def main(file: Path) -> None:
    """Time the engine of a request as the lines of standard input ask."""
    request = TimingRequest.from_document(json.loads(file.read_text()))
    set_threads(request.threads)
    with os.fdopen(os.dup(1), "w") as replies:
        os.dup2(2, 1)  # what a runtime prints is no reply
        with Worker(request) as worker:
            print(json.dumps(worker.ready.to_document()), file=replies, flush=True)
            commands = {ROUND: worker.run_round, PATH: worker.run_path}
            for line in sys.stdin:
                print(json.dumps(commands[line.strip()]().to_document()), file=replies, flush=True)


if __name__ == "__main__":
    with exit_as_lesiontk():
        main(Path(sys.argv[1]))
