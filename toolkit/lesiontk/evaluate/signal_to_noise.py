"""The signal-to-noise ratio of an engine's layers. Plain NumPy over two engines' activations."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lesiontk.calibration.ranges import TensorReader
from lesiontk.document import Record

HIGHEST = 120.0
"""The maximum in decibels, for equal values or differences below float32's precision."""


@dataclass(frozen=True, slots=True)
class LayerSignal(Record):
    """One activation's signal-to-noise ratio: ``10 log10(sum x^2 / sum (x - y)^2)`` in dB.

    `x` is the parent's value, `y` the engine's, over all images. It includes the noise of earlier
    layers.
    """

    tensor: str
    decibels: float


@dataclass(frozen=True, slots=True)
class SignalSummary(Record):
    """The ratios of `layers` layers on `n` images: their median in dB and the worst."""

    n: int
    layers: int
    median_decibels: float | None
    worst: tuple[LayerSignal, ...]


@dataclass(frozen=True, slots=True)
class SignalReport:
    """Every activation that parent and engine have in common, in the parent's order."""

    n: int
    layers: tuple[LayerSignal, ...]

    def worst(self, count: int) -> tuple[LayerSignal, ...]:
        """Return the layers with the least signal, worst first."""
        return tuple(sorted(self.layers, key=lambda layer: layer.decibels)[:count])

    def summarize(self, count: int = 5) -> SignalSummary:
        """Return n, the number of layers, their median and the `count` worst."""
        ratios = [layer.decibels for layer in self.layers]
        median = float(np.median(ratios)) if ratios else None
        return SignalSummary(self.n, len(self.layers), median, self.worst(count))


def measure_signal(
    parent: TensorReader, child: TensorReader, images: Iterable[NDArray[np.uint8]]
) -> SignalReport:
    """Return the ratio of each activation that both readers return in the same shape.

    `images` are uint8 [1, S, S, 3]. Activations are matched by name; those of only one of the two
    (fused operators, casts) are left out.
    """
    signal: dict[str, float] = {}
    noise: dict[str, float] = {}
    n = 0
    for image in images:
        expected, received = parent(image), child(image)
        for name in _common(expected, received):
            x = expected[name]
            signal[name] = signal.get(name, 0.0) + _energy(x)
            noise[name] = noise.get(name, 0.0) + _energy(x - received[name])
        n += 1
    layers = [LayerSignal(name, ratio_in_decibels(signal[name], noise[name])) for name in signal]
    return SignalReport(n, tuple(layers))


def ratio_in_decibels(signal: float, noise: float) -> float:
    """Return ``10 log10(signal / noise)``, at most 120; at least -120 without a signal."""
    if noise == 0.0:
        return HIGHEST
    if signal == 0.0:
        return -HIGHEST
    return float(np.clip(10.0 * np.log10(signal / noise), -HIGHEST, HIGHEST))


def _energy(values: NDArray[Any]) -> float:
    """Return the sum of squares; in float32 the error is far below a decibel."""
    flat = np.ravel(values)
    return float(np.vdot(flat, flat))


def _common(
    expected: Mapping[str, NDArray[Any]], received: Mapping[str, NDArray[Any]]
) -> list[str]:
    return [
        name
        for name, values in expected.items()
        if name in received and received[name].shape == values.shape
    ]
