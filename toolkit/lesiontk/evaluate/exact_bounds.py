"""Exact bounds for cases in which a bootstrap has width 0: no, or almost no, difference.

A share of lesions is bounded with the exact binomial interval (Clopper & Pearson 1934). Lesions
with several images count by Kish's effective number ``(sum m)^2 / sum m^2`` of lesions of ``m``
images each, as Korn & Graubard (1998, Survey Methodology 24, 193-201) do for clustered samples; the
counts may then be fractions. The difference of two such shares, and the mean of several, is bounded
by adding the squared distances of the parts (MOVER: Newcombe 1998, Statistics in Medicine 17,
2635-2650; Zou & Donner 2008, Statistics in Medicine 27, 1693-1702). Plain NumPy and SciPy.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class OneSided:
    """A value with a lower and an upper bound, each one-sided at the confidence."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class PairedShare:
    """The shares of lesions lost and gained, of an effective number `n` of independent ones.

    Lost lesions are correct in the parent and wrong in the child; gained ones the reverse.
    """

    n: float
    lost: float
    gained: float

    def scale(self, factor: float) -> PairedShare:
        """Return the same shares of `factor` times as many lesions."""
        return PairedShare(self.n * factor, self.lost, self.gained)


def bound_share(share: float, n: float, confidence: float) -> OneSided:
    """Return the one-sided Clopper-Pearson bounds of a `share` of `n` (both may be fractional).

    With none of 12 found the upper 95 % bound is ``1 - 0.05 ** (1 / 12)``, which is 0.22.
    """
    from scipy.special import betaincinv  # slow to import; no help needs it

    if n <= 0:
        return OneSided(share, 0.0, 1.0)
    count, alpha = share * n, 1.0 - confidence
    low = 0.0 if count <= 0 else float(betaincinv(count, n - count + 1, alpha))
    high = 1.0 if count >= n else float(betaincinv(count + 1, n - count, 1 - alpha))
    return OneSided(share, low, high)


def bound_loss(paired: PairedShare, confidence: float) -> OneSided:
    """Return the loss, ``lost - gained``, with its one-sided bounds in [-1, 1]."""
    lost, gained = (bound_share(x, paired.n, confidence) for x in (paired.lost, paired.gained))
    loss = paired.lost - paired.gained
    above = math.hypot(lost.high - lost.value, gained.value - gained.low)
    below = math.hypot(lost.value - lost.low, gained.high - gained.value)
    return OneSided(loss, max(-1.0, loss - below), min(1.0, loss + above))


def bound_mean(parts: Sequence[OneSided]) -> OneSided:
    """Return the mean of independent parts with its bounds, as for a balanced accuracy."""
    value = float(np.mean([part.value for part in parts]))
    below = math.hypot(*(part.value - part.low for part in parts)) / len(parts)
    above = math.hypot(*(part.high - part.value for part in parts)) / len(parts)
    return OneSided(value, value - below, value + above)


def bound_auc(auc: float, positive: float, negative: float, confidence: float) -> OneSided:
    """Return the one-sided bounds of an AUC in (0, 1) of so many `positive` and `negative` lesions.

    A bound is the AUC whose distance to the observed one is z standard deviations, by the variance
    of Hanley and McNeil (1982) for exponential scores, with both numbers averaged: method 5 of
    Newcombe (2006, Statistics in Medicine 25, 559-573). It is valid from one lesion.
    """
    from scipy.optimize import brentq  # slow to import; no help needs it
    from scipy.special import ndtri

    z, extra = float(ndtri(confidence)), (positive + negative) / 2 - 1

    def excess(bound: float) -> float:
        spread = 1 + extra * ((1 - bound) / (2 - bound) + bound / (1 + bound))
        variance = bound * (1 - bound) * spread / (positive * negative)
        return abs(bound - auc) - z * math.sqrt(variance)

    return OneSided(auc, float(brentq(excess, 0.0, auc)), float(brentq(excess, auc, 1.0)))


def bound_unseen(lesions: float, confidence: float) -> float:
    """Return the upper bound of the share of lesions with an outcome that none of `lesions` has."""
    return bound_share(0.0, lesions, confidence).high


def count_effective(lesion: npt.NDArray[np.int64]) -> float:
    """Return Kish's effective number of lesions, from each image's lesion number [N >= 1]."""
    images = np.unique(lesion, return_counts=True)[1].astype(np.float64)
    return float(images.sum() ** 2 / np.square(images).sum())


def pair_shares(
    before: BoolArray, after: BoolArray, among: BoolArray, lesion: npt.NDArray[np.int64]
) -> PairedShare:
    """Return the shares lost and gained among some images; masks are bool [N], `among` not empty.

    `before` and `after` are the images that the parent and the child classify correctly.
    """
    return PairedShare(
        n=count_effective(lesion[among]),
        lost=float((before & ~after)[among].mean()),
        gained=float((~before & after)[among].mean()),
    )
