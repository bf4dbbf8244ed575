"""The statistic of a gate: a value that should be low, with one-sided bounds and p-value."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from lesiontk.evaluate.exact_bounds import OneSided
from lesiontk.evaluate.metrics import FloatArray

Bound = Callable[[float, float], OneSided]
"""Maps a confidence, and how many times as many lesions, to one-sided bounds."""

SMALLEST_ALPHA = 1e-6
MOST_LESIONS = 1e6
"""Limit of the factor on the number of lesions: beyond it, no number is reported as sufficient."""


@dataclass(frozen=True, slots=True)
class GateStatistic:
    """A value that should be low, with its resamples float64 [B], sorted (none with one lesion).

    `exact` maps a confidence and a factor on the number of lesions to bounds that are valid where a
    bootstrap has width 0; they are `assumed` if they depend on the assumed cost of unseen lesions.
    `lesions` is the number of lesions `of` the kind that the metric needs.
    """

    value: float
    samples: FloatArray
    exact: Bound
    lesions: int
    of: str
    assumed: bool = False

    @property
    def method(self) -> str:
        """The method of the bounds."""
        exact = "cost of unseen lesions assumed" if self.assumed else "exact"
        return f"bootstrap of lesions, {exact}" if self.samples.size else exact

    def bound(self, confidence: float, factor: float = 1.0) -> OneSided:
        """Return the one-sided bounds for `factor` times as many lesions."""
        found = [self.exact(confidence, factor)]
        if self.samples.size:
            tail = 1.0 - confidence
            low, high = np.quantile(self.samples, [tail, 1 - tail]) - self.value
            narrower = math.sqrt(factor)
            found.append(
                OneSided(self.value, self.value + low / narrower, self.value + high / narrower)
            )
        return OneSided(self.value, min(b.low for b in found), max(b.high for b in found))

    def p_value(self, limit: float) -> float:
        """Return the smallest alpha at which the upper bound is within `limit`, else 1."""
        smallest = max(SMALLEST_ALPHA, 1 / (self.samples.size + 1) if self.samples.size else 0)
        low, high = math.log(smallest), math.log(0.5)
        if not self._is_within(limit, 0.5):
            return 1.0
        if self._is_within(limit, 1 - smallest):
            return smallest
        for _ in range(30):
            middle = (low + high) / 2
            if self._is_within(limit, 1 - math.exp(middle)):
                high = middle
            else:
                low = middle
        return math.exp(high)

    def _is_within(self, limit: float, confidence: float, factor: float = 1.0) -> bool:
        return self.bound(confidence, factor).high <= limit + 1e-12

    def count_needed(self, limit: float, confidence: float) -> int | None:
        """Return the number of lesions with which the bound is within `limit`, with the same
        results.

        The width of the bootstrap interval falls with the square root of their number; the exact
        bounds are those of the same shares of more lesions. None if no number suffices, because the
        value itself exceeds the limit.
        """
        if self.value >= limit or not self._is_within(limit, confidence, MOST_LESIONS):
            return None
        low, high = 0.0, math.log(MOST_LESIONS)
        for _ in range(40):
            middle = (low + high) / 2
            if self._is_within(limit, confidence, math.exp(middle)):
                high = middle
            else:
                low = middle
        return math.ceil(self.lesions * math.exp(high) - 1e-6)
