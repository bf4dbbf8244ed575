"""Comparison of an engine with its parent on the same images.

`measure_agreement` needs no labels, as after a conversion; `compare_predictions` uses them for
paired intervals, McNemar's test and the images whose class changed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lesiontk.document import Record
from lesiontk.errors import DataError
from lesiontk.evaluate.bootstrap import (
    Estimate,
    check_groups,
    check_resampling,
    estimate_metrics,
)
from lesiontk.evaluate.exact_bounds import BoolArray
from lesiontk.evaluate.lesion_limits import Limits, drop_missing, limit_few_discordant
from lesiontk.evaluate.metrics import (
    SMALLEST_PROBABILITY,
    FloatArray,
    IntArray,
    MetricScorer,
    check_probabilities,
    metric_names,
)
from lesiontk.evaluate.operating_point import Decisions, OperatingPoint, OperatingPointScorer
from lesiontk.recipe.metric import METRICS

THRESHOLD_METRICS = ("sensitivity", "specificity")


@dataclass(frozen=True, slots=True)
class Agreement(Record):
    """How close a child's outputs are to its parent's on `n` images, without labels.

    `top1_agreement` is the share of images with the same arg-max; the drifts are the mean and the
    largest |child - parent| over images and classes, in [0, 1]; `mean_kl_divergence` is the mean
    of KL(parent || child) >= 0 in nats (Kullback & Leibler 1951).
    """

    n: int
    top1_agreement: float
    mean_absolute_drift: float
    max_absolute_drift: float
    mean_kl_divergence: float


@dataclass(frozen=True, slots=True)
class McNemarTest(Record):
    """McNemar's exact test that parent and child err equally often (McNemar 1947).

    `b` images are correct only in the parent, `c` only in the child. The test assumes independent
    images; for lesions with several images the paired bootstrap is more reliable.
    """

    b: int
    c: int
    p_value: float


@dataclass(frozen=True, slots=True)
class ChangedImage(Record):
    """An image whose class differs in the child, by its row in the predictions."""

    index: int
    true_label: str
    from_label: str
    to_label: str
    right_before: bool
    right_after: bool


@dataclass(frozen=True, slots=True)
class Comparison(Record):
    """A child against its parent on `n` images of `lesions` lesions.

    `differences` are child - parent, with paired intervals at level `confidence`, for accuracy,
    balanced_accuracy, macro_auc and each recall, and, where both have an operating point, for
    sensitivity and specificity, each at its own threshold. Negative values mean that the child is
    worse.
    """

    n: int
    lesions: int
    labels: tuple[str, ...]
    differences: Mapping[str, Estimate]
    mcnemar: McNemarTest
    changed: tuple[ChangedImage, ...]
    agreement: Agreement
    confidence: float
    resamples: int
    seed: int


def _check_pair(parent: npt.ArrayLike, child: npt.ArrayLike) -> tuple[FloatArray, FloatArray]:
    before = check_probabilities("parent", parent)
    after = check_probabilities("child", child)
    if before.shape != after.shape:
        raise DataError(
            f"child has shape {list(after.shape)}; expected its parent's {list(before.shape)}."
        )
    return before, after


def _compute_kl_divergence(parent: FloatArray, child: FloatArray) -> FloatArray:
    """Return KL(parent || child) [N] of rows clipped at 1.2e-7 and normalized to sum 1."""
    before, after = (np.maximum(x, SMALLEST_PROBABILITY) for x in (parent, child))
    before /= before.sum(axis=1, keepdims=True)
    after /= after.sum(axis=1, keepdims=True)
    divergence: FloatArray = (before * np.log(before / after)).sum(axis=1)
    return np.maximum(divergence, 0.0)


def measure_agreement(parent: npt.ArrayLike, child: npt.ArrayLike) -> Agreement:
    """Return how close `child` is to `parent`, probabilities float [N, C] of the same images.

    For the divergence only, values below 1.2e-7 count as 1.2e-7 and rows are normalized to sum 1,
    so that rounded zeros give a finite number. Raises `DataError` for bad inputs.
    """
    before, after = _check_pair(parent, child)
    drift = np.abs(after - before)
    return Agreement(
        n=len(before),
        top1_agreement=float((before.argmax(axis=1) == after.argmax(axis=1)).mean()),
        mean_absolute_drift=float(drift.mean()),
        max_absolute_drift=float(drift.max()),
        mean_kl_divergence=float(_compute_kl_divergence(before, after).mean()),
    )


def is_constant(probabilities: npt.ArrayLike, tolerance: float = 1e-6) -> bool:
    """Return whether the output is the same for all images, as in a broken engine.

    `probabilities` is float [N >= 2, C]; the output is constant if no class varies by more than
    `tolerance`. Rows need not sum to 1, because a broken engine's may not. Raises `DataError` for
    another shape or NaN.
    """
    array = np.asarray(probabilities, dtype=np.float64)
    if array.ndim != 2 or array.shape[0] < 2 or array.shape[1] == 0:
        raise DataError(
            f"probabilities have shape {list(array.shape)}; expected [N, C] with N >= 2 images."
        )
    if not np.isfinite(array).all():
        raise DataError("probabilities contain NaN or infinity; expected finite numbers.")
    return bool(np.ptp(array, axis=0).max() <= tolerance)


def apply_mcnemar_test(
    parent_right: npt.NDArray[np.bool_], child_right: npt.NDArray[np.bool_]
) -> McNemarTest:
    """Return the exact two-sided test on two bool arrays [N]: whether each image is correct.

    The p-value is 2 P(X <= min(b, c)) with X ~ Binomial(b + c, 1/2), at most 1, and 1 where no
    image is discordant. It is computed in integers to avoid underflow.
    """
    if parent_right.shape != child_right.shape or parent_right.ndim != 1:
        raise DataError(
            f"parent_right and child_right have shapes {list(parent_right.shape)} and "
            f"{list(child_right.shape)}; expected the same [N]."
        )
    b = int((parent_right & ~child_right).sum())
    c = int((child_right & ~parent_right).sum())
    outcomes = tail = 1
    for k in range(1, min(b, c) + 1):
        outcomes = outcomes * (b + c - k + 1) // k
        tail += outcomes
    return McNemarTest(b=b, c=c, p_value=min(1.0, 2 * tail / (1 << (b + c))))


def _list_changed(parent: MetricScorer, child: MetricScorer) -> tuple[ChangedImage, ...]:
    labels = parent.labels
    return tuple(
        ChangedImage(
            index=int(index),
            true_label=labels[parent.y_true[index]],
            from_label=labels[parent.top1[index]],
            to_label=labels[child.top1[index]],
            right_before=bool(parent.top1[index] == parent.y_true[index]),
            right_after=bool(child.top1[index] == child.y_true[index]),
        )
        for index in np.flatnonzero(parent.top1 != child.top1)
    )


def limit_differences(
    parent: MetricScorer,
    child: MetricScorer,
    *at_points: Decisions,
    lesion: IntArray,
    confidence: float,
) -> dict[str, Limits]:
    """Return metric -> the limits of child - parent, if few lesions are discordant.

    `at_points` are the parent's and the child's decisions at a threshold, or empty.
    """
    before, after = (scorer.top1 == scorer.y_true for scorer in (parent, child))
    kinds = [parent.y_true == index for index in range(len(parent.labels))]
    all_images = np.ones(len(lesion), dtype=np.bool_)

    def limit(
        *kinds: BoolArray, pair: tuple[BoolArray, BoolArray] = (before, after)
    ) -> Limits | None:
        return limit_few_discordant(*pair, kinds, lesion, confidence)

    found = {"accuracy": limit(all_images), "balanced_accuracy": limit(*kinds)}
    for label, kind in zip(parent.labels, kinds, strict=True):
        found[f"recall[{label}]"] = limit(kind)
    if at_points:
        old, new = at_points
        found["sensitivity"] = limit(old.truth, pair=(old.called, new.called))
        found["specificity"] = limit(~old.truth, pair=(~old.called, ~new.called))
    return drop_missing(found)


def compared_metrics(labels: Sequence[str]) -> tuple[str, ...]:
    """Return the names of the metrics whose difference is estimated."""
    compared = (n for n in metric_names(labels) if METRICS.get(n.partition("[")[0]).compared)
    return (*compared, *THRESHOLD_METRICS)


def compare_predictions(
    y_true: npt.ArrayLike,
    parent: npt.ArrayLike,
    child: npt.ArrayLike,
    labels: Sequence[str],
    groups: Sequence[str],
    *,
    resamples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
    points: tuple[OperatingPoint, OperatingPoint] | None = None,
) -> Comparison:
    """Return what changed from `parent` to `child`, probabilities float [N, C] of the same images.

    Both are scored on the same draws of whole lesions, so that common variation cancels (the paired
    bootstrap). `y_true`, `groups` and the errors are those of `evaluate_predictions`; `points` are
    the parent's and the child's, each frozen on its own outputs, because they may differ.
    """
    check_resampling(resamples, confidence)
    before, after = _check_pair(parent, child)
    scorers = (MetricScorer(y_true, before, labels), MetricScorer(y_true, after, labels))
    lesions = int(check_groups(groups, len(before)).max()) + 1
    kinds = [kind for kind, metric in METRICS.items() if metric.compared]
    names = [n for n in compared_metrics(labels) if points or n not in THRESHOLD_METRICS]
    at_points = [
        OperatingPointScorer(point, y_true, probabilities, labels)
        for point, probabilities in zip(points or (), (before, after), strict=False)
    ]

    def difference(weights: FloatArray | None) -> dict[str, FloatArray]:
        """Return metric -> child - parent, [B]."""
        old, new = (scorer.compute(weights, kinds) for scorer in scorers)
        if at_points:
            old, new = (
                values | at_point.compute(weights)
                for values, at_point in zip((old, new), at_points, strict=True)
            )
        return {name: new[name] - old[name] for name in names}

    def limit(lesion: IntArray, confidence: float) -> dict[str, Limits]:
        """Return metric -> the limits of its difference, if few lesions are discordant."""
        return limit_differences(*scorers, *at_points, lesion=lesion, confidence=confidence)

    return Comparison(
        n=len(before),
        lesions=lesions,
        labels=tuple(labels),
        differences=estimate_metrics(
            difference,
            groups,
            resamples=resamples,
            confidence=confidence,
            seed=seed,
            limits=limit,
        ),
        mcnemar=apply_mcnemar_test(*(s.top1 == s.y_true for s in scorers)),
        changed=_list_changed(*scorers),
        agreement=measure_agreement(before, after),
        confidence=confidence,
        resamples=resamples,
        seed=seed,
    )
