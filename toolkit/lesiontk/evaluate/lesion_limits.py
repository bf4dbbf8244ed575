"""Exact limits for metrics of few lesions, for which a bootstrap is too narrow.

A bootstrap repeats the sample. A share of 12 of 12 gets an interval of width 0, and so does the
difference of two engines that agree on all images; an AUC of one positive lesion varies only by the
negatives. If fewer than `FEW` lesions have one of the outcomes, the limits are those of
`exact_bounds`, for an AUC of `bound_auc`. Both limits hold together at `confidence`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from lesiontk.evaluate.exact_bounds import (
    BoolArray,
    OneSided,
    bound_auc,
    bound_loss,
    bound_mean,
    bound_share,
    bound_unseen,
    count_effective,
    pair_shares,
)
from lesiontk.evaluate.metrics import IntArray, MetricScorer

FEW = 5
"""The number of lesions from which a bootstrap is reliable, as in Cochran's rule (1954)."""

Limits = tuple[float, float]


def one_sided(confidence: float) -> float:
    """Return the one-sided confidence of each limit of a two-sided interval."""
    return (1.0 + confidence) / 2.0


def drop_missing(limits: Mapping[str, Limits | None]) -> dict[str, Limits]:
    """Return the entries that are not None."""
    return {name: limit for name, limit in limits.items() if limit is not None}


def limit_few(
    right: BoolArray, among: BoolArray, lesion: IntArray, confidence: float, few: float = FEW
) -> Limits | None:
    """Return the limits of the share of the images `among` that are `right`.

    The masks are bool [N], `lesion` is int [N], one number per lesion. None if hits and misses are
    both at least `few`, or if no image is `among`.
    """
    if not among.any():
        return None
    share, lesions = float(right[among].mean()), count_effective(lesion[among])
    if min(share, 1 - share) * lesions >= few:
        return None
    bounds = bound_share(share, lesions, one_sided(confidence))
    return bounds.low, bounds.high


def limit_auc(
    auc: float, positive: BoolArray, lesion: IntArray, confidence: float, few: float = FEW
) -> Limits | None:
    """Return the limits of an AUC with few positives or negatives, or of almost 0 or 1.

    None if both are at least `few`, or if it is NaN. For an AUC of exactly 0 or 1: k positive and k
    negative lesions form k independent pairs, and all of them are ranked correctly with a
    probability of at most AUC^k.
    """
    if math.isnan(auc):
        return None
    if auc in (0.0, 1.0):
        pairs = min(
            len(np.unique(lesion[one_sided_confidence]))
            for one_sided_confidence in (positive, ~positive)
        )
        unseen = bound_unseen(pairs, one_sided(confidence))
        return (1 - unseen, 1.0) if auc == 1.0 else (0.0, unseen)
    positives, negatives = (
        count_effective(lesion[one_sided_confidence])
        for one_sided_confidence in (positive, ~positive)
    )
    if min(auc, 1 - auc) * min(positives, negatives) >= few:
        return None
    bounds = bound_auc(auc, positives, negatives, one_sided(confidence))
    return bounds.low, bounds.high


def limit_metrics(scorer: MetricScorer, lesion: IntArray, confidence: float) -> dict[str, Limits]:
    """Return metric -> limits, of the metrics of `MetricScorer.compute` that need them."""
    values = {name: float(value[0]) for name, value in scorer.compute().items()}
    all_images = np.ones(len(lesion), dtype=np.bool_)
    right = scorer.y_true == scorer.top1
    found = {"accuracy": limit_few(right, all_images, lesion, confidence)}
    for index, label in enumerate(scorer.labels):
        true, called = scorer.y_true == index, scorer.top1 == index
        found |= {
            f"recall[{label}]": limit_few(called, true, lesion, confidence),
            f"precision[{label}]": limit_few(true, called, lesion, confidence),
            f"specificity[{label}]": limit_few(~called, ~true, lesion, confidence),
            f"f1[{label}]": _limit_f1(true, called, lesion, confidence),
            f"auc[{label}]": limit_auc(values[f"auc[{label}]"], true, lesion, confidence),
        }
    if any(found[f"recall[{label}]"] for label in scorer.labels):
        found["balanced_accuracy"] = _limit_mean_recall(scorer, lesion, confidence)
    for mean, metric in (("macro_auc", "auc"), ("macro_f1", "f1")):
        two = metric == "auc" and len(scorer.labels) == 2
        names = [f"{metric}[{label}]" for label in scorer.labels[-1 if two else 0 :]]
        limits = [limit for name in names if (limit := found[name])]
        if values[mean] in (0.0, 1.0):  # all classes or no class perfect: all limits hold together
            found[mean] = _average(limits)
        elif limits:
            limited = _limit_each(metric, scorer, values, lesion, confidence)
            found[mean] = _limit_mean(
                OneSided(values[name], *limited[name]) for name in names if name in limited
            )
    return drop_missing(found)


def _limit_each(
    metric: str,
    scorer: MetricScorer,
    values: Mapping[str, float],
    lesion: IntArray,
    confidence: float,
) -> dict[str, Limits]:
    """Return name -> the limits of an AUC or F1 of each class that has one, few lesions or many."""
    found: dict[str, Limits | None] = {}
    for index, label in enumerate(scorer.labels):
        name, true = f"{metric}[{label}]", scorer.y_true == index
        if metric == "auc":
            found[name] = limit_auc(values[name], true, lesion, confidence, few=math.inf)
        else:
            found[name] = _limit_f1(true, scorer.top1 == index, lesion, confidence, few=math.inf)
    return drop_missing(found)


def _limit_mean(parts: Iterable[OneSided]) -> Limits:
    return _clip(bound_mean(list(parts)), 0.0)


def _limit_f1(
    true: BoolArray, called: BoolArray, lesion: IntArray, confidence: float, few: float = FEW
) -> Limits | None:
    """F1 is 2 r / (1 + r) with the Jaccard index r, which is a share; absent classes have none."""
    if not true.any():
        return None
    limits = limit_few(true & called, true | called, lesion, confidence, few)
    return limits and (2 * limits[0] / (1 + limits[0]), 2 * limits[1] / (1 + limits[1]))


def _limit_mean_recall(scorer: MetricScorer, lesion: IntArray, confidence: float) -> Limits:
    parts = []
    for index in range(len(scorer.labels)):
        true = scorer.y_true == index
        if true.any():
            share = float((scorer.top1[true] == index).mean())
            parts.append(bound_share(share, count_effective(lesion[true]), one_sided(confidence)))
    return _limit_mean(parts)


def _average(limits: Iterable[Limits]) -> Limits:
    low, high = np.mean(list(limits), axis=0)
    return float(low), float(high)


def _clip(bounds: OneSided, lowest: float) -> Limits:
    return max(lowest, bounds.low), min(1.0, bounds.high)


def limit_few_discordant(
    before: BoolArray,
    after: BoolArray,
    kinds: Sequence[BoolArray],
    lesion: IntArray,
    confidence: float,
) -> Limits | None:
    """Return the limits of after - before, of the mean over `kinds` of the correct shares.

    `before` and `after` are the correct images; they and each of `kinds` are bool [N]. None if
    discordant lesions are not few, or if a kind has no images.
    """
    kinds = [kind for kind in kinds if kind.any()]
    pairs = [pair_shares(before, after, kind, lesion) for kind in kinds]
    if not pairs or sum((pair.lost + pair.gained) * pair.n for pair in pairs) >= FEW:
        return None
    loss = bound_mean([bound_loss(pair, one_sided(confidence)) for pair in pairs])
    low, high = _clip(loss, -1.0)
    return -high, -low
