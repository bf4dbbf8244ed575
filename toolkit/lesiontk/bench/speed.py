"""Speed-up and noise of interleaved timings.

Rounds are resampled with replacement, the same rounds for all engines: a load that slows the
machine affects all engines in the same round.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from lesiontk.bench.benchmark import EngineRow

NOISY_RATIO = 2.0
"""A run is noisy if one round in ten takes more than this times the median, or the median more than
this times the fastest tenth."""

RESAMPLES = 1000


@dataclass(frozen=True, slots=True)
class Speedup:
    """A ratio of median latencies, above 1 if the engine is faster, and its interval."""

    value: float
    low: float | None
    high: float | None

    @property
    def interval(self) -> tuple[float, float] | None:
        """Both ends of the interval, if there is one."""
        return None if self.low is None or self.high is None else (self.low, self.high)


def estimate_speedup(
    parent_ms: Sequence[float], child_ms: Sequence[float], confidence: float, seed: int = 0
) -> Speedup:
    """Return median(parent) / median(child) with its percentile interval at `confidence`.

    The samples are in ms, one a round, the same rounds in both. One round has no interval. Raises
    `ValueError` for samples of different rounds.
    """
    times = np.array([parent_ms, child_ms], dtype=np.float64)  # ragged samples raise here
    parent, child = np.median(times, axis=1)
    rounds = times.shape[1]
    if rounds < 2:
        return Speedup(float(parent / child), None, None)
    drawn = np.random.default_rng(seed).integers(rounds, size=(RESAMPLES, rounds))
    medians = np.median(times[:, drawn], axis=2)
    tail = (1.0 - confidence) / 2.0
    low, high = np.quantile(medians[0] / medians[1], [tail, 1.0 - tail])
    return Speedup(float(parent / child), float(low), float(high))


def list_noisy(rows: Iterable[EngineRow]) -> dict[str, float]:
    """Return target -> the ratio that is greater than `NOISY_RATIO`, of a benchmark's noisy rows.

    It is the ratio of the 90th percentile to the median, or of the median to the 10th, if greater.
    Emulated engines are left out.
    """
    found = {}
    for row in rows:
        latency = row.latency_ms
        if latency and latency.p10 and not row.emulated_by:
            found[row.key] = max(latency.p90 / latency.median, latency.median / latency.p10)
    return {target: ratio for target, ratio in found.items() if ratio > NOISY_RATIO}


def describe_noise(rows: Iterable[EngineRow]) -> str:
    """Return a sentence on noisy timings and the remedy; empty without noise."""
    noisy = list_noisy(rows)
    if not noisy:
        return ""
    worst = max(noisy, key=lambda target: noisy[target])
    return (
        f"noisy run: latencies of {', '.join(noisy)} spread by more than {NOISY_RATIO:g} times "
        f"(90th percentile to median, or median to 10th; up to {noisy[worst]:.1f} times, {worst}): "
        "other programs used the machine; stop them and measure again, with --fresh and more "
        "rounds (--set bench.rounds=300)"
    )
