"""Matching of corresponding tensors of two graphs by their values.

A network's layers and the graphs derived from it differ in tensor names and axis order. On the same
image, corresponding tensors have the same values.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

TOLERANCE = 1e-3
"""Tolerance of equal values, relative to the largest magnitude."""

Values = Mapping[str, NDArray[Any]]


def is_same(expected: NDArray[Any], values: NDArray[Any]) -> bool:
    """Return whether both are equal within tolerance.

    Values are those of one image: expected ones [1, h, w, C] or [1, C], the others in this or in
    channels-first order.
    """
    if values.size != expected.size:
        return False
    tolerance = TOLERANCE * max(float(np.abs(expected).max()), 1e-6)
    orders = [values.reshape(expected.shape)]
    if expected.ndim == 4 and values.ndim == 4:
        first = (expected.shape[0], expected.shape[3], *expected.shape[1:3])
        orders.append(values.reshape(first).transpose(0, 2, 3, 1))
    return any(float(np.abs(order - expected).max()) <= tolerance for order in orders)


def find_same(origin: Iterable[Values], tensors: Iterable[Values]) -> dict[str, str]:
    """Return tensor -> the tensor of `origin` with its values on every image.

    Both have one entry per image, and are read once. Among several with the same values the first
    is used.
    """
    candidates: dict[str, list[str]] = {}
    for number, (origin_tensors, own_tensors) in enumerate(zip(origin, tensors, strict=True)):
        if number == 0:
            candidates = _find_alike(origin_tensors, own_tensors)
        candidates = {
            name: [other for other in others if is_same(origin_tensors[other], own_tensors[name])]
            for name, others in candidates.items()
        }
    return {name: others[0] for name, others in candidates.items() if others}


def _find_alike(origin: Values, tensors: Values) -> dict[str, list[str]]:
    """Return tensor -> those with its size and extremes, which are compared first."""
    extremes = {name: _extremes(values) for name, values in origin.items()}
    candidates_of: dict[str, list[str]] = {}
    for name, values in tensors.items():
        size, low, high = _extremes(values)
        near = TOLERANCE * max(abs(low), abs(high), 1e-6)
        candidates_of[name] = [
            other
            for other, (other_size, other_low, other_high) in extremes.items()
            if size == other_size and max(abs(low - other_low), abs(high - other_high)) <= near
        ]
    return candidates_of


def _extremes(values: NDArray[Any]) -> tuple[int, float, float]:
    return values.size, float(values.min()), float(values.max())
