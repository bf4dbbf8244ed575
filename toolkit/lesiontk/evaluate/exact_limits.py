"""Confidence limits of shares where a bootstrap has too little to draw from.

A percentile bootstrap repeats what it saw. A share of 12 of 12 gets an interval of width 0 from it,
and so does a difference between two engines that disagree about no image. The limits here hold for
any number of lesions. Each lesion counts as one trial, as if its images agreed perfectly (Korn &
Graubard 1998); `tail` is the probability left beyond one limit, 0.025 for a two-sided 95 % interval
and 0.05 for a one-sided 95 % bound.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy.optimize import brentq
from scipy.stats import beta, norm

FEW = 5
"""Below so many lesions of either outcome, the bootstrap alone is not relied on (Cochran 1954)."""

Limits = tuple[float, float]


def bound_unseen_rate(lesions: int, tail: float) -> float:
    """Return the highest rate 0..1 at which an event stays unseen in `lesions` lesions.

    The exact bound of Clopper & Pearson 1934 for zero events, 1 - tail^(1/n). For 12 lesions and a
    tail of 0.05 it is 0.22.
    """
    return 1.0 - float(tail ** (1.0 / lesions)) if lesions else 1.0


def bound_unseen_mean(lesions: Sequence[int], tail: float) -> float:
    """Return the highest mean of several rates at which no event of any kind is seen.

    Kind c is not seen in `lesions[c]` lesions of its own. The bound maximizes the mean of the rates
    p_c under prod (1 - p_c)^n_c = tail (Buehler 1957). The solution has
    1 - p_c = min(1, n_c * scale), and one scale satisfies the constraint.
    """
    sizes = np.array(lesions, dtype=np.float64)
    if not len(sizes) or sizes.min() < 1:
        return 1.0

    def excess(log_scale: float) -> float:
        kept = np.minimum(0.0, np.log(sizes) + log_scale)
        return float((sizes * kept).sum() - math.log(tail))

    highest = -math.log(sizes.min())
    lowest = highest + math.log(tail) / sizes.min() - 1.0
    scale = brentq(excess, lowest, highest)
    rates = -np.expm1(np.minimum(0.0, np.log(sizes) + scale))
    return float(rates.mean())


def limit_share(share: float, lesions: int, tail: float) -> Limits:
    """Return the limits of Clopper & Pearson 1934 for a `share` 0..1 of `lesions` lesions.

    The count may be fractional, for a lesion may have images of both outcomes (Korn & Graubard
    1998).
    """
    hits = share * lesions
    misses = lesions - hits
    low = float(beta.ppf(tail, hits, misses + 1)) if hits > 0 else 0.0
    high = float(beta.ppf(1 - tail, hits + 1, misses)) if misses > 0 else 1.0
    return low, high


def limit_paired_difference(lost: int, gained: int, lesions: int, tail: float) -> Limits:
    """Return the limits of gained - lost, as a share of `lesions` that were judged twice.

    `lost` lesions were right only the first time, `gained` only the second. Where there is neither,
    the limits are exact: each rate is at most `bound_unseen_rate`. The same holds where all lesions
    were lost, or all gained. Otherwise they are those of the score test (Tango 1998), which holds
    where few pairs are discordant.
    """
    unseen = bound_unseen_rate(lesions, tail)
    if lost == gained == 0:
        return -unseen, unseen
    if lesions in (lost, gained):
        ends = (-1.0, 2 * unseen - 1.0)
        return ends if lost else (-ends[1], 1.0)
    quantile = float(norm.isf(tail))
    difference = (gained - lost) / lesions

    def excess(delta: float) -> float:
        """Return by how much the squared score statistic at `delta` exceeds its quantile."""
        half = (2 * lesions - gained + lost) * delta - gained - lost
        root = half * half + 8 * lesions * lost * delta * (1 - delta)
        rate = (math.sqrt(max(root, 0.0)) - half) / (4 * lesions)
        variance = lesions * (2 * rate + delta * (1 - delta))
        return (gained - lost - lesions * delta) ** 2 - quantile**2 * max(variance, 0.0)

    return float(brentq(excess, -1.0, difference)), float(brentq(excess, difference, 1.0))
