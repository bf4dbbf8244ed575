"""Holm's step-down adjustment (Holm 1979, Scandinavian Journal of Statistics 6, 65-70)."""

from __future__ import annotations

from collections.abc import Sequence


def adjust_holm(p_values: Sequence[float], alphas: Sequence[float] | None = None) -> list[float]:
    """Return the adjusted p-values, to compare with the alpha of each test.

    With equal alphas this is Holm's procedure: the k-th smallest of m is multiplied by m - k + 1,
    and none is below an earlier one. Tests with different `alphas` are ordered by p / alpha; the
    closed test then controls the error at the largest alpha.
    """
    levels = list(alphas) if alphas is not None else [1.0] * len(p_values)
    order = sorted(range(len(p_values)), key=lambda index: p_values[index] / levels[index])
    adjusted = [0.0] * len(p_values)
    least = 0.0
    for rank, index in enumerate(order):
        least = max(least, (len(order) - rank) * p_values[index] / levels[index])
        adjusted[index] = min(1.0, least * levels[index])
    return adjusted
