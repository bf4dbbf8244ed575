"""Speed-up and noise of interleaved timings.

Rounds are resampled with replacement, the same rounds for all engines: a load that slows the
machine affects all engines in the same round.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from lesiontk.bench.benchmark import EngineRow
from lesiontk.bench.timing import TITLES
from lesiontk.evaluate.latency_rounds import Rounds, draw_rounds, resample_quantile


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
    parent_ms: Rounds, child_ms: Rounds, confidence: float, seed: int = 0
) -> Speedup:
    """Return median(parent) / median(child) with its percentile interval at `confidence`.

    The samples are in ms, by round, the same rounds in both. One round has no interval. Raises
    `ValueError` for samples of different rounds.
    """
    rounds = len(parent_ms)
    if len(child_ms) != rounds:
        raise ValueError(f"{rounds} and {len(child_ms)} rounds; expected the same")
    ratio = float(np.median(parent_ms) / np.median(child_ms))
    if rounds < 2:
        return Speedup(ratio, None, None)
    drawn = draw_rounds(rounds, seed)
    parent, child = (resample_quantile(samples, 0.5, drawn) for samples in (parent_ms, child_ms))
    tail = (1.0 - confidence) / 2.0
    low, high = np.quantile(parent / child, [tail, 1.0 - tail])
    return Speedup(ratio, float(low), float(high))


def list_noisy(rows: Iterable[EngineRow]) -> dict[str, tuple[str, ...]]:
    """Return target -> clauses on the noise in its scenarios, of a benchmark's noisy rows.

    Emulated engines are left out.
    """
    found: dict[str, tuple[str, ...]] = {}
    for row in rows:
        for timing in () if row.emulated_by else row.scenarios:
            if timing.noise:
                found[row.key] = (
                    *found.get(row.key, ()),
                    f"{TITLES[timing.scenario]}: {', '.join(timing.noise)}",
                )
    return found


def describe_noise(rows: Iterable[EngineRow]) -> str:
    """Return a sentence on noisy timings and the remedy; empty without noise."""
    rows = list(rows)
    noisy = list_noisy(rows)
    if not noisy:
        return ""
    attempts = max(timing.attempts for row in rows for timing in row.scenarios)
    first = next(iter(noisy))
    tried = f" after {attempts} attempts" if attempts > 1 else ""
    return (
        f"noisy run{tried}: the latencies of {', '.join(noisy)} vary from round to round, or other "
        f"programs used the machine ({first}, {noisy[first][0]}); stop them and measure again, "
        "with --fresh and more rounds (--set bench.rounds=60)"
    )
