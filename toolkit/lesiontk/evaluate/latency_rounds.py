"""Quantiles of latencies that were measured in rounds, by bootstrap over the rounds.

Samples of one round share the machine's state, so rounds are the clusters: they are drawn with
replacement, each with all its samples (Davison & Hinkley, Bootstrap Methods and their Application,
1997, section 3.8).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 1000
CHUNK = 100
"""Resamples at a time, which bounds the memory."""

Rounds = Sequence[Sequence[float]]
"""The samples in ms of each round, as many in every round."""


def least_samples(quantile: float, confidence: float = 0.95) -> int:
    """Return the number of samples from which a quantile above 0.5 has a finite interval.

    The two-sided interval of order statistics at `confidence` ends at the largest sample; of n
    independent samples all are below the quantile with probability ``quantile ** n``.

    >>> least_samples(0.9), least_samples(0.99)
    (36, 368)
    """
    return math.ceil(math.log((1 - confidence) / 2) / math.log(quantile))


def draw_rounds(count: int, seed: int = 0) -> NDArray[np.int64]:
    """Return int [RESAMPLES, count], the rounds of each resample."""
    return np.random.default_rng(seed).integers(count, size=(RESAMPLES, count))


def resample_quantile(
    rounds: Rounds, quantile: float, drawn: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Return the quantile of all samples, float [B], in each resample of the rounds.

    `drawn` is int [B, R]. Raises `ValueError` if rounds differ in their number of samples.
    """
    samples = np.array(rounds, dtype=np.float64)  # ragged rounds raise here
    parts = [
        np.quantile(samples[part].reshape(len(part), -1), quantile, axis=1)
        for part in np.array_split(drawn, max(1, math.ceil(len(drawn) / CHUNK)))
    ]
    return np.concatenate(parts)


def bound_by_rounds(
    rounds: Rounds, quantile: float, confidence: float, seed: int = 0
) -> tuple[float | None, float | None]:
    """Return one-sided lower and upper bounds of a quantile; None with fewer than two rounds."""
    if len(rounds) < 2:
        return None, None
    found = resample_quantile(rounds, quantile, draw_rounds(len(rounds), seed))
    low, high = np.quantile(found, [1 - confidence, confidence])
    return float(low), float(high)
