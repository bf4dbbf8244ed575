"""Observers with a histogram: percentile, entropy, mean squared error. Plain NumPy."""

from __future__ import annotations

from abc import abstractmethod

import numpy as np
from numpy.typing import NDArray

from lesiontk.calibration.observers import Observer, Values
from lesiontk.errors import DataError

Floats = NDArray[np.float64]


class HistogramObserver(Observer):
    """Counts values in equal bins from -limit to limit.

    The bins are widened by powers of two when a value falls outside, so memory does not grow with
    the number of images.
    """

    def __init__(self, bins: int = 4096) -> None:
        super().__init__()
        self._bins = bins
        self._limit = 0.0
        self._counts = np.zeros(bins, np.int64)
        self._zeros = 0

    def _observe(self, values: Values) -> None:
        extreme = max(-float(values.min()), float(values.max()))
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
        self._zeros += int(values.size - np.count_nonzero(values))

    def _range(self) -> tuple[float, float]:
        if not self._counts.any():
            raise DataError("no calibration image was observed.")
        return self._range_from_counts()

    def _nonzero_counts(self) -> NDArray[np.int64]:
        """Return the counts without exact zeros, which every range represents exactly."""
        counts = self._counts.copy()
        counts[self._bins // 2] -= self._zeros
        return counts

    @abstractmethod
    def _range_from_counts(self) -> tuple[float, float]: ...


class PercentileObserver(HistogramObserver):
    """The range of all but the outermost share of values."""

    def __init__(self, percentile: float = 99.99, bins: int = 4096) -> None:
        super().__init__(bins)
        self._tail = (100.0 - percentile) / 100.0

    def _range_from_counts(self) -> tuple[float, float]:
        cumulative = np.cumsum(self._counts) / int(self._counts.sum())
        edges = np.linspace(-self._limit, self._limit, self._bins + 1)
        low = edges[int(np.searchsorted(cumulative, self._tail / 2, side="right"))]
        high = edges[int(np.searchsorted(cumulative, 1 - self._tail / 2, side="left")) + 1]
        return float(low), float(high)


class MSEObserver(HistogramObserver):
    """The range of least mean squared error of 8-bit values.

    The squared error of a value outside the range is its squared distance to it, and step^2 / 12 on
    average inside; zero has none (Nagel et al., arXiv:2106.08295, section 3.1; Sung et al.,
    arXiv:1511.06488). The candidates for both ends are shares of the extremes.
    """

    SHARES = np.linspace(0.1, 1.0, 91)
    STEPS = 255

    def _range_from_counts(self) -> tuple[float, float]:
        counts = self._nonzero_counts().astype(np.float64)
        edges = np.linspace(-self._limit, self._limit, self._bins + 1)
        centres = (edges[:-1] + edges[1:]) / 2
        lows = np.unique(self.SHARES * min(self.minimum, 0.0))
        highs = np.unique(self.SHARES * max(self.maximum, 0.0))
        below = _distance_beyond(counts[::-1], -centres[::-1], -lows)
        above = _distance_beyond(counts, centres, highs)
        steps = (highs[np.newaxis, :] - lows[:, np.newaxis]) / self.STEPS
        inside = counts.sum() - (below[1][:, np.newaxis] + above[1][np.newaxis, :])
        error = below[0][:, np.newaxis] + above[0][np.newaxis, :] + inside * steps**2 / 12
        row, column = np.unravel_index(int(error.argmin()), error.shape)
        return float(lows[row]), float(highs[column])


def _distance_beyond(counts: Floats, centres: Floats, limits: Floats) -> tuple[Floats, Floats]:
    """Return for each limit the sum of squared distances of the values beyond it, and their
    number."""
    first = np.searchsorted(centres, limits, side="right")
    moments = [
        np.append(np.cumsum((counts * centres**power)[::-1])[::-1], 0.0)[first]
        for power in (0, 1, 2)
    ]
    return moments[2] - 2 * limits * moments[1] + limits**2 * moments[0], moments[0]


class EntropyObserver(HistogramObserver):
    """The range whose 8-bit values preserve most of the information.

    The threshold minimizes the Kullback-Leibler divergence between the clipped distribution of
    magnitudes and its quantized form (Migacz, 8-bit Inference with TensorRT, GTC 2017). Zeros do
    not count.
    """

    CANDIDATES = 128

    def _range_from_counts(self) -> tuple[float, float]:
        counts = self._nonzero_counts()
        half = self._bins // 2
        magnitudes = (counts[half:] + counts[:half][::-1]).astype(np.float64)
        levels = 128 if self.minimum < 0 < self.maximum else 256
        if not magnitudes.any():
            return self.minimum, self.maximum
        ends = np.unique(np.linspace(levels, half, self.CANDIDATES).astype(np.int64))
        losses = [_divergence(magnitudes, int(end), levels) for end in ends]
        threshold = self._limit * float(ends[int(np.argmin(losses))]) / half
        return max(-threshold, self.minimum), min(threshold, self.maximum)


def _divergence(counts: Floats, end: int, levels: int) -> float:
    """Return KL(P || Q) in nats: P the first `end` bins, the rest in the last; Q in `levels`."""
    kept = counts[:end]
    reference = kept.copy()
    reference[-1] += counts[end:].sum()
    starts = np.linspace(0, end, levels + 1).astype(np.int64)[:-1]
    filled = kept > 0
    sums = np.add.reduceat(kept, starts)
    share = np.add.reduceat(filled.astype(np.int64), starts)
    widths = np.diff(np.append(starts, end))
    spread = np.repeat(sums / np.maximum(share, 1), widths) * filled
    if not reference.any() or not spread.any():
        return float(np.inf)
    p = reference / reference.sum()
    q = np.maximum(spread / spread.sum(), 1e-12)
    there = p > 0
    return float((p[there] * np.log(p[there] / q[there])).sum())
