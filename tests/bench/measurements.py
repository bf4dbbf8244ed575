"""Made-up measurements."""

from __future__ import annotations

from collections.abc import Sequence

from lesiontk.bench.load import Load
from lesiontk.bench.measure import Measurement
from lesiontk.bench.timing import SINGLE_STREAM, Attempt, Timing


def make_attempt(medians: Sequence[float], others_load: float | None = 0.0) -> Attempt:
    return Attempt(rounds_ms=tuple((m, m, m) for m in medians), others_load=others_load)


def make_measurement(*attempts: Attempt, chosen: int = 0, warmed_up: bool = True) -> Measurement:
    timing = Timing(
        scenario=SINGLE_STREAM, threads=1, streams=1, batch=1, warmup=30, warmed_up=warmed_up,
        attempts=attempts, chosen=chosen, execution=(), image_size=96,
    )  # fmt: skip
    load = Load(first_ms=9.0, again_ms=(1.0,), idle_bytes=5, resident_bytes=8, peak_bytes=2**20)
    return Measurement((timing,), 1000, load)
