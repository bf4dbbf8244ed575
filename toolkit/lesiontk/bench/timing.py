"""Latencies of an engine in a scenario: raw samples by round, percentiles, and signs of noise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from lesiontk.backends.execution import Execution
from lesiontk.document import Record
from lesiontk.evaluate.latency_rounds import Rounds, least_samples

SINGLE_STREAM, MULTI_THREAD, OFFLINE = "single_stream", "multi_thread", "offline"
TITLES = {
    SINGLE_STREAM: "single stream",
    MULTI_THREAD: "single stream, all cores",
    OFFLINE: "offline",
}

SPREAD_LIMIT = 0.25
"""A run is noisy if the 90th percentile of the medians of its rounds lies further than this share
of their median above the 10th."""
OTHERS_LIMIT = 0.1
"""A run is noisy if other programs used more than this share of the cores."""


@dataclass(frozen=True, slots=True)
class Latency(Record):
    """Percentiles in ms of `n` timings.

    `p90` and `p99` are None if `n` is below `least_samples` of them, 36 and 368: no interval of
    them would be finite. `p10` is None if it was not recorded.
    """

    median: float
    p90: float | None
    n: int
    p10: float | None = None
    p99: float | None = None

    @classmethod
    def of(cls, samples_ms: Sequence[float]) -> Self:
        """Return the percentiles of samples, to a tenth of a microsecond."""
        n = len(samples_ms)
        p10, median, p90, p99 = (
            round(float(np.quantile(samples_ms, rank)), 4) for rank in (0.1, 0.5, 0.9, 0.99)
        )
        return cls(
            median,
            p90 if n >= least_samples(0.9) else None,
            n,
            p10,
            p99 if n >= least_samples(0.99) else None,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt(Record):
    """One measurement of all rounds: the raw ms of each query by round.

    `path_ms` are those of pictures from file to answer, by round: decoding, crop and resize,
    inference, and the whole by a clock of its own. `others_load` is the share of the machine's
    cores, 0..1, that other programs used meanwhile; None where the system does not tell.
    `energy_mj` is the energy of the machine above idle for one query, also those that are not
    timed; None without a counter.
    """

    rounds_ms: tuple[tuple[float, ...], ...]
    path_ms: tuple[tuple[tuple[float, ...], ...], ...] = ()
    others_load: float | None = None
    energy_mj: float | None = None

    @property
    def spread(self) -> float:
        """(p90 - p10) / median of the medians of the rounds."""
        low, median, high = np.quantile(np.median(self.rounds_ms, axis=1), [0.1, 0.5, 0.9])
        return float((high - low) / median)

    def list_noise(self) -> tuple[str, ...]:
        """Return what makes the measurement noisy, as clauses; empty for a calm one."""
        found = []
        if self.spread > SPREAD_LIMIT:
            found.append(
                f"the medians of its rounds spread by {self.spread:.0%} of their median (limit "
                f"{SPREAD_LIMIT:.0%})"
            )
        if self.others_load is not None and self.others_load > OTHERS_LIMIT:
            found.append(
                f"other programs used {self.others_load:.0%} of the cores (limit "
                f"{OTHERS_LIMIT:.0%})"
            )
        return tuple(found)


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing(Record):
    """An engine in a `scenario`, raw.

    A query is `batch` images at once; `streams` engines of `threads` threads each share it.
    `warmup` queries preceded, and `warmed_up` is whether their latency became stable. `attempts`
    are the measurements, of which `chosen` is the index of the calmest, the same for all engines.
    `execution` is by the runtime; `image_size` in pixels a side.
    """

    scenario: str
    threads: int
    streams: int
    batch: int
    warmup: int
    warmed_up: bool
    attempts: tuple[Attempt, ...]
    chosen: int
    execution: tuple[Execution, ...]
    image_size: int

    @property
    def attempt(self) -> Attempt:
        """The calmest measurement."""
        return self.attempts[self.chosen]

    @property
    def rounds_ms(self) -> Rounds:
        """The raw ms of its queries by round."""
        return self.attempt.rounds_ms

    @property
    def samples_ms(self) -> tuple[float, ...]:
        """The raw ms of its queries."""
        return tuple(value for samples in self.rounds_ms for value in samples)

    @property
    def latency(self) -> Latency:
        """The percentiles of the queries."""
        return Latency.of(self.samples_ms)

    def list_noise(self) -> tuple[str, ...]:
        """Return why the measurement is noisy, as clauses."""
        unstable = () if self.warmed_up else ("its latency did not become stable in the warm-up",)
        return (*self.attempt.list_noise(), *unstable)


@dataclass(frozen=True, slots=True, kw_only=True)
class ScenarioTiming(Record):
    """The figures of an engine in a `scenario`.

    A query is `batch` images at once; `streams` engines of `threads` threads each share it.
    `images_per_second` is the batch over the median. `spread` is that of the medians of the
    `rounds`, `others_load` the share of the cores that other programs used, `noise` what makes the
    measurement noisy after `attempts` attempts. `energy_mj` is the energy of the machine above idle
    for one image; None without a counter. `speedup` is the ratio of the parent's median to
    the engine's in the same scenario, with its interval; None without a parent.
    """

    scenario: str
    threads: int
    streams: int
    batch: int
    latency_ms: Latency
    images_per_second: float
    rounds: int
    warmup: int
    spread: float
    others_load: float | None
    attempts: int
    noise: tuple[str, ...] = ()
    energy_mj: float | None = None
    speedup: float | None = None
    speedup_interval: tuple[float, float] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PathTiming(Record):
    """Median ms of each part of the path from a JPEG file to the answer, `n` pictures.

    `whole` has a clock of its own, around all parts. `pictures` describes the files.
    """

    decode: float
    resize: float
    inference: float
    whole: Latency
    n: int
    pictures: str


def summarize_path(attempt: Attempt, pictures: str) -> PathTiming | None:
    """Return the parts of the path from file to answer; None if it was not measured."""
    if not attempt.path_ms:
        return None
    parts = np.array([sample for samples in attempt.path_ms for sample in samples])
    decode, resize, inference = (round(float(v), 4) for v in np.median(parts[:, :3], axis=0))
    return PathTiming(
        decode=decode,
        resize=resize,
        inference=inference,
        whole=Latency.of(parts[:, 3].tolist()),
        n=len(parts),
        pictures=pictures,
    )
