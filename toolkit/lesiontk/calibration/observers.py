"""Observers: the range of a tensor from its values on calibration images. Plain NumPy.

An observer receives the tensor's values image by image and returns (low, high). Every range
contains zero, which padding and ReLU require to be exact.
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
    """The range of one tensor; `minimum` and `maximum` are the observed extremes."""

    def __init__(self) -> None:
        self.minimum, self.maximum = np.inf, -np.inf

    def observe(self, values: NDArray[Any]) -> None:
        """Add one image's values. Raises `DataError` for a value that is not finite."""
        flat = np.asarray(values, dtype=np.float32).ravel()
        if not flat.size:
            return
        low, high = float(flat.min()), float(flat.max())  # NaN propagates through both
        if not np.isfinite(high - low):
            raise DataError("a tensor has values that are not finite on the calibration images.")
        self.minimum, self.maximum = min(self.minimum, low), max(self.maximum, high)
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
    """The smallest and the largest value: nothing saturates, outliers cost resolution."""

    def _observe(self, values: Values) -> None:
        """The base class keeps the extremes."""

    def _range(self) -> tuple[float, float]:
        if self.minimum > self.maximum:
            raise DataError("no calibration image was observed.")
        return self.minimum, self.maximum


class MovingAverageObserver(Observer):
    """Exponential average of each image's extremes (Jacob et al., arXiv:1712.05877, section 3.1).

    The range is that of a typical image; outliers saturate.
    """

    def __init__(self, momentum: float = 0.95) -> None:
        super().__init__()
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


OBSERVERS: Registry[type[Observer]] = Registry("observer")
OBSERVERS.register("min_max", "lesiontk.calibration.observers:MinMaxObserver")
OBSERVERS.register("moving_average", "lesiontk.calibration.observers:MovingAverageObserver")
OBSERVERS.register("percentile", "lesiontk.calibration.histogram_observers:PercentileObserver")
OBSERVERS.register("entropy", "lesiontk.calibration.histogram_observers:EntropyObserver")
OBSERVERS.register("mse", "lesiontk.calibration.histogram_observers:MSEObserver")
