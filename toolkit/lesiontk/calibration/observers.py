"""Observers: from the values a tensor takes on calibration images to its range. Plain NumPy.

An observer sees one image's values of one tensor after another and ends with (low, high). Ranges
always hold zero, which padding and ReLU need to be exact.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lesiontk.errors import DataError
from lesiontk.registry import Registry

Values = NDArray[np.float32]


class Observer(ABC):
    """The range of one tensor."""

    def observe(self, values: NDArray[Any]) -> None:
        """Take in one image's values; a value that is not finite is an error."""
        flat = np.asarray(values, dtype=np.float32).ravel()
        if flat.size and not np.isfinite(flat).all():
            raise DataError("a tensor takes values that are not finite on the calibration images.")
        if flat.size:
            self._observe(flat)

    def range(self) -> tuple[float, float]:
        """Return (low, high) with low <= 0 <= high and low < high."""
        low, high = self._range()
        low, high = min(low, 0.0), max(high, 0.0)
        return (low, high) if high - low > 1e-8 else (low, low + 1e-8)

    @abstractmethod
    def _observe(self, values: Values) -> None: ...

    @abstractmethod
    def _range(self) -> tuple[float, float]: ...


class MinMaxObserver(Observer):
    """The smallest and the largest value ever seen: nothing saturates, outliers cost resolution."""

    def __init__(self) -> None:
        self._low, self._high = np.inf, -np.inf

    def _observe(self, values: Values) -> None:
        self._low = min(self._low, float(values.min()))
        self._high = max(self._high, float(values.max()))

    def _range(self) -> tuple[float, float]:
        if self._low > self._high:
            raise DataError("no calibration image was observed.")
        return self._low, self._high


class MovingAverageObserver(Observer):
    """Exponential average of each image's extremes (Jacob et al., arXiv:1712.05877, section 3.1).

    Follows the typical image, so single images saturate.
    """

    def __init__(self, momentum: float = 0.95) -> None:
        self._momentum = momentum
        self._state: tuple[float, float] | None = None

    def _observe(self, values: Values) -> None:
        low, high = float(values.min()), float(values.max())
        if self._state is None:
            self._state = (low, high)
        else:
            keep = self._momentum
            self._state = (
                keep * self._state[0] + (1 - keep) * low,
                keep * self._state[1] + (1 - keep) * high,
            )

    def _range(self) -> tuple[float, float]:
        if self._state is None:
            raise DataError("no calibration image was observed.")
        return self._state


class PercentileObserver(Observer):
    """The range that holds all but the outermost share of values.

    Keeps a histogram of `bins` equal bins, widened by powers of two when a value falls outside, so
    that memory does not grow with the number of images.
    """

    def __init__(self, percentile: float = 99.99, bins: int = 4096) -> None:
        self._tail = (100.0 - percentile) / 100.0
        self._bins = bins
        self._limit = 0.0
        self._counts = np.zeros(bins, np.int64)

    def _observe(self, values: Values) -> None:
        extreme = float(np.abs(values).max())
        if self._limit == 0.0:
            self._limit = max(extreme, 1e-6)
        while extreme > self._limit:  # merge pairs of bins towards the centre
            half = self._bins // 4
            merged = self._counts.reshape(-1, 2).sum(axis=1)
            self._counts = np.zeros(self._bins, np.int64)
            self._counts[half : half + self._bins // 2] = merged
            self._limit *= 2
        wide = values.astype(np.float64)  # bin edges are exact there, as they are in `_range`
        self._counts += np.histogram(wide, self._bins, (-self._limit, self._limit))[0]

    def _range(self) -> tuple[float, float]:
        total = int(self._counts.sum())
        if total == 0:
            raise DataError("no calibration image was observed.")
        cumulative = np.cumsum(self._counts) / total
        edges = np.linspace(-self._limit, self._limit, self._bins + 1)
        low = edges[int(np.searchsorted(cumulative, self._tail / 2, side="right"))]
        high = edges[int(np.searchsorted(cumulative, 1 - self._tail / 2, side="left")) + 1]
        return float(low), float(high)


OBSERVERS: Registry[type[Observer]] = Registry("observer")
OBSERVERS.register("min_max", "lesiontk.calibration.observers:MinMaxObserver")
OBSERVERS.register("moving_average", "lesiontk.calibration.observers:MovingAverageObserver")
OBSERVERS.register("percentile", "lesiontk.calibration.observers:PercentileObserver")
