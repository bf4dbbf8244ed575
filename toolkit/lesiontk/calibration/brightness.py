"""The brightness of an image, and its band among the quartiles of the training images."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

BANDS = ("darkest", "dark", "bright", "brightest")
"""The quarters of the training images by mean luma."""

LUMA = np.array([0.2126, 0.7152, 0.0722])
"""Weights of R, G and B (ITU-R BT.709-6, section 3.2), applied to the pixels' stored values."""


def measure_luma(pixels: NDArray[np.uint8], rows: Iterable[int]) -> NDArray[np.float64]:
    """Return the mean luma, 0..255, of the `rows` of `pixels` uint8 [N, S, S, 3] RGB."""
    height, width = pixels.shape[1:3]
    # In integers: ten times as fast as a mean in float64, and the same number.
    sums = (pixels[row].sum(axis=0, dtype=np.uint32).sum(axis=0) for row in rows)
    return np.array([total / (height * width) @ LUMA for total in sums], np.float64)


def band_edges(luma: NDArray[np.float64]) -> tuple[float, float, float]:
    """Return the quartiles that separate the bands."""
    low, middle, high = np.quantile(luma, (0.25, 0.5, 0.75))
    return float(low), float(middle), float(high)


def name_band(luma: float, edges: tuple[float, float, float]) -> str:
    """Return the band of a mean luma; a value on an edge belongs to the darker side."""
    return BANDS[int(np.searchsorted(edges, luma))]
