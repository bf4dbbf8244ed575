"""Classification metrics for a batch of weight vectors, so that a bootstrap is one computation.

Every metric is a ratio of sums over images; an image's weight multiplies its term, and weight 2
equals a duplicate of the image. An undefined metric (the recall of a class without images, the
precision of a class never predicted) is NaN, never 0. The precision of an absent class that is
predicted is defined (0), and so is the F1 of a present class that is never predicted (0).

The predicted class is the arg-max; of equal probabilities the earlier label is predicted.
Probabilities are not rescaled.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from lesiontk.document import Record
from lesiontk.errors import DataError
from lesiontk.recipe.metric import METRICS

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

CALIBRATION_BINS = 15
ROW_SUM_TOLERANCE = 1e-2
# The minimum in logarithms is the step of float32 at 1, because engines return float32 or coarser.
SMALLEST_PROBABILITY = float(np.finfo(np.float32).eps)
MELANOMA_LABELS = ("mel", "malignant")


@dataclass(frozen=True, slots=True)
class ReliabilityBin(Record):
    """The images with a top-1 confidence in (`low`, `high`], the first bin including 0.

    `confidence` and `accuracy` are means in [0, 1] over the `count` images, None without images.
    """

    low: float
    high: float
    count: int
    confidence: float | None
    accuracy: float | None


def order_labels(labels: Sequence[str]) -> tuple[str, ...]:
    """Return `labels` with melanoma (``mel`` or ``malignant``) first, the rest in their order."""
    first = [label for label in MELANOMA_LABELS if label in labels]
    return (*first, *(label for label in labels if label not in first))


def metric_names(labels: Sequence[str]) -> tuple[str, ...]:
    """Return every metric's name in the order of `compute_metrics`, such as ``recall[mel]``.

    They are in order of registration, each per-label metric with melanoma first. Metrics at a
    chosen threshold are in `lesiontk.evaluate.operating_point`.
    """
    ordered = order_labels(labels)
    return tuple(
        name
        for kind, metric in METRICS.items()
        for name in ([f"{kind}[{label}]" for label in ordered] if metric.per_label else [kind])
    )


def order_metrics(names: Iterable[str], critical: str) -> tuple[str, ...]:
    """Return metric names with that of the label `critical` before its kind's other labels."""
    listed = list(names)
    first: dict[str, int] = {}
    for place, name in enumerate(listed):
        first.setdefault(name.partition("[")[0], place)

    def place_of(name: str) -> tuple[int, bool]:
        return first[name.partition("[")[0]], not name.endswith(f"[{critical}]")

    return tuple(sorted(listed, key=place_of))


def check_probabilities(
    name: str, probabilities: npt.ArrayLike, classes: int | None = None
) -> FloatArray:
    """Return `probabilities` as float64 [N, C], N >= 1 and C >= 2 (`classes` if given).

    Raises `DataError`, naming `name`, for another shape or type, values that are negative or not
    finite, and rows whose sum is further than 0.01 from 1.
    """
    array = np.asarray(probabilities)
    if array.dtype.kind != "f":
        raise DataError(f"{name} has dtype {array.dtype}; expected floating point.")
    fewest, most = (2, np.inf) if classes is None else (classes, classes)
    if array.ndim != 2 or len(array) == 0 or not fewest <= array.shape[1] <= most:
        columns = "C >= 2" if classes is None else f"{classes} labels"
        raise DataError(
            f"{name} has shape {list(array.shape)}; expected [N, {columns}] with N >= 1."
        )
    array = array.astype(np.float64)
    wrong = ~np.isfinite(array) | (array < 0)
    if wrong.any():
        row, column = (int(i) for i in np.argwhere(wrong)[0])
        raise DataError(
            f"{name}[{row}, {column}] is {array[row, column]}; expected a probability in [0, 1]."
        )
    distance = np.abs(array.sum(axis=1) - 1.0)
    worst = int(distance.argmax())
    if distance[worst] > ROW_SUM_TOLERANCE:
        raise DataError(
            f"{name}[{worst}] sums to {array[worst].sum():.6g}; expected 1 within "
            f"{ROW_SUM_TOLERANCE}: pass probabilities, not logits."
        )
    return array


def check_truth(y_true: npt.ArrayLike, images: int, classes: int) -> IntArray:
    """Return the indices of the true labels, int64 [images]. Raises `DataError` for others."""
    truth = np.asarray(y_true)
    if truth.shape != (images,) or truth.dtype.kind not in "iu":
        raise DataError(
            f"y_true has shape {list(truth.shape)} and dtype {truth.dtype}; "
            f"expected [{images}] integers, one for each row of the probabilities."
        )
    outside = np.flatnonzero((truth < 0) | (truth >= classes))
    if outside.size:
        index = int(outside[0])
        raise DataError(f"y_true[{index}] is {truth[index]}; expected 0 to {classes - 1}.")
    return truth.astype(np.int64)


def _check_weights(weights: npt.ArrayLike, images: int) -> FloatArray:
    array = np.asarray(weights)
    if array.ndim != 2 or array.shape[0] == 0 or array.shape[1] != images:
        raise DataError(f"weights have shape {list(array.shape)}; expected [B >= 1, {images}].")
    array = array.astype(np.float64, copy=False)
    if not np.isfinite(array).all() or array.min() < 0:
        raise DataError("weights contain a negative or non-finite value; expected finite and >= 0.")
    empty = np.flatnonzero(array.sum(axis=1) == 0)
    if empty.size:
        raise DataError(f"weights[{empty[0]}] are all 0; expected at least one positive weight.")
    return array


def divide(numerator: FloatArray, denominator: FloatArray) -> FloatArray:
    """Return the quotient, NaN if the denominator is 0."""
    result = np.full(np.broadcast_shapes(numerator.shape, denominator.shape), np.nan)
    np.divide(numerator, denominator, out=result, where=denominator > 0)
    return result


def mean_of_defined(values: FloatArray) -> FloatArray:
    """Return the mean over the last axis without NaN; NaN if all values are NaN."""
    defined = ~np.isnan(values)
    total = np.where(defined, values, 0.0).sum(axis=-1)
    return divide(total, defined.sum(axis=-1).astype(np.float64))


def _assign_bins(confidence: FloatArray) -> IntArray:
    """Return the bin 0..14 of each confidence; bin m is (m/15, (m+1)/15] as in Guo et al."""
    edges = np.arange(1, CALIBRATION_BINS) / CALIBRATION_BINS
    return np.searchsorted(edges, confidence, side="left").astype(np.int64)


class RankedScores:
    """Positives against the rest, sorted once for the AUC of any number of weight vectors."""

    def __init__(self, scores: FloatArray, is_positive: npt.NDArray[np.bool_]) -> None:
        self.positives = np.flatnonzero(is_positive)
        negatives = np.flatnonzero(~is_positive)
        self.negatives = negatives[np.argsort(scores[negatives], kind="stable")]
        ranked = scores[self.negatives]
        self.below = np.searchsorted(ranked, scores[self.positives], side="left")
        self.not_above = np.searchsorted(ranked, scores[self.positives], side="right")

    def compute_auc(self, weights: FloatArray) -> FloatArray:
        """Return [B]: the weight of (positive, negative) pairs ranked correctly, ties half."""
        cumulative = np.zeros((weights.shape[0], self.negatives.size + 1))
        np.cumsum(weights[:, self.negatives], axis=1, out=cumulative[:, 1:])
        positive = weights[:, self.positives]
        surpassed = 0.5 * (cumulative[:, self.below] + cumulative[:, self.not_above])
        pairs = np.einsum("bp,bp->b", positive, surpassed)
        auc = divide(pairs, positive.sum(axis=1) * cumulative[:, -1])
        return np.minimum(auc, 1.0)  # fractional weights can round to slightly above 1


@dataclass(frozen=True)
class WeightedScores:
    """The input of a metric: predictions of C labels for N images, under B weightings.

    `y_true` is int64 [N], `probabilities` float64 [N, C], `weights` float64 [B, N], `terms` the
    images' own [N, C*C + 15 + 2]: confusion cell, bin gap, squared and logarithmic loss.
    """

    labels: tuple[str, ...]
    y_true: IntArray
    probabilities: FloatArray
    weights: FloatArray
    terms: FloatArray
    ranked: Sequence[RankedScores]

    @cached_property
    def confusion(self) -> FloatArray:
        """Weights [B, C, C]: true labels in rows, predicted classes in columns."""
        classes = len(self.labels)
        sums: FloatArray = self.weights @ self.terms[:, : classes * classes]
        return sums.reshape(-1, classes, classes)

    @cached_property
    def right(self) -> FloatArray:
        """Weight [B, C] of a label's images that are predicted as such: true positives."""
        return np.diagonal(self.confusion, axis1=1, axis2=2)

    @cached_property
    def missed(self) -> FloatArray:
        """Weight [B, C] of a label's images that are predicted otherwise: false negatives."""
        missed: FloatArray = (self.confusion * self._other).sum(axis=2)
        return missed

    @cached_property
    def intruded(self) -> FloatArray:
        """Weight [B, C] of other labels' images that are predicted as the label: false
        positives."""
        intruded: FloatArray = (self.confusion * self._other).sum(axis=1)
        return intruded

    @cached_property
    def rejected(self) -> FloatArray:
        """Weight [B, C] of other labels' images that are not predicted as the label: true
        negatives.

        It is summed over cells, because a difference of totals would not round to 0.
        """
        other = self._other
        rejected: FloatArray = np.einsum("bij,ci,cj->bc", self.confusion, other, other)
        return rejected

    @cached_property
    def auc(self) -> FloatArray:
        """The area under each label's curve against the rest [B, C]."""
        return np.stack([ranked.compute_auc(self.weights) for ranked in self.ranked], axis=1)

    @property
    def bin_gaps(self) -> FloatArray:
        """Weighted sums [B, 15] of accuracy minus confidence in each bin of confidence."""
        return self._losses[:, :CALIBRATION_BINS]

    @property
    def squared(self) -> FloatArray:
        """Weighted sum [B] of the squared distances."""
        return self._losses[:, -2]

    @property
    def logarithmic(self) -> FloatArray:
        """Weighted sum [B] of the negative logarithms, nats."""
        return self._losses[:, -1]

    @cached_property
    def total(self) -> FloatArray:
        """Weight [B] of all images."""
        total: FloatArray = self.weights.sum(axis=1)
        return total

    @cached_property
    def _losses(self) -> FloatArray:
        losses: FloatArray = self.weights @ self.terms[:, len(self.labels) ** 2 :]
        return losses

    @cached_property
    def _other(self) -> FloatArray:
        return 1.0 - np.eye(len(self.labels))


class MetricScorer:
    """Predictions prepared once (checked, sorted) and scored under many weight vectors.

    The arguments are those of `compute_metrics`. `top1` is the predicted class, int64 [N].
    """

    def __init__(
        self, y_true: npt.ArrayLike, probabilities: npt.ArrayLike, labels: Sequence[str]
    ) -> None:
        if len(labels) < 2 or len(set(labels)) != len(labels):
            raise DataError(f"labels are {tuple(labels)}; expected two or more different names.")
        classes = len(labels)
        self.labels = tuple(labels)
        self.probabilities = check_probabilities("probabilities", probabilities, classes)
        self.y_true = check_truth(y_true, len(self.probabilities), classes)
        self.top1: IntArray = self.probabilities.argmax(axis=1).astype(np.int64)
        self._terms = self._build_terms()
        self._ranked = [
            RankedScores(self.probabilities[:, c], self.y_true == c) for c in range(classes)
        ]

    def _build_terms(self) -> FloatArray:
        """Return each image's terms [N, C*C + 15 + 2]: confusion cell, bin gap, losses."""
        images, classes = self.probabilities.shape
        rows = np.arange(images)
        confidence = self.probabilities[rows, self.top1]
        gap = (self.top1 == self.y_true) - confidence
        cells, bins = classes * classes, _assign_bins(confidence)
        terms = np.zeros((images, cells + CALIBRATION_BINS + 2))
        terms[rows, self.y_true * classes + self.top1] = 1.0
        terms[rows, cells + bins] = gap
        target = np.eye(classes)[self.y_true]
        terms[:, -2] = np.square(self.probabilities - target).sum(axis=1)
        true_probability = self.probabilities[rows, self.y_true]
        terms[:, -1] = -np.log(np.clip(true_probability, SMALLEST_PROBABILITY, 1.0))
        return terms

    def compute(
        self, weights: npt.ArrayLike | None = None, kinds: Sequence[str] | None = None
    ) -> dict[str, FloatArray]:
        """Return every metric of `metric_names`, or those of `kinds`, each [B].

        `weights` are [B, N], None for ones.
        """
        images, classes = self.probabilities.shape
        checked = _check_weights(np.ones((1, images)) if weights is None else weights, images)
        scores = WeightedScores(
            self.labels, self.y_true, self.probabilities, checked, self._terms, self._ranked
        )
        values: dict[str, FloatArray] = {}
        for kind in METRICS if kinds is None else kinds:
            metric = METRICS.get(kind)
            found = np.asarray(metric.compute(scores), dtype=np.float64)
            expected = (len(checked), classes) if metric.per_label else (len(checked),)
            if found.shape != expected:
                raise DataError(
                    f"the metric {kind} returned shape {list(found.shape)}; expected "
                    f"{list(expected)}, a value for each weighting"
                    f"{' and label' if metric.per_label else ''}."
                )
            if metric.per_label:
                for label in order_labels(self.labels):
                    values[f"{kind}[{label}]"] = found[:, self.labels.index(label)]
            else:
                values[kind] = found
        return values

    def count_confusion(self) -> IntArray:
        """Return the number of images, int64 [C, C]: true labels in rows, predictions in
        columns."""
        classes = len(self.labels)
        cells = self.y_true * classes + self.top1
        return np.bincount(cells, minlength=classes * classes).reshape(classes, classes)

    def bin_reliability(self) -> tuple[ReliabilityBin, ...]:
        """Return the 15 bins of a reliability diagram (Guo et al. 2017, figure 1)."""
        confidence = self.probabilities.max(axis=1)
        bins, correct = _assign_bins(confidence), self.top1 == self.y_true
        inside = [bins == index for index in range(CALIBRATION_BINS)]
        return tuple(
            ReliabilityBin(
                low=index / CALIBRATION_BINS,
                high=(index + 1) / CALIBRATION_BINS,
                count=int(mask.sum()),
                confidence=float(confidence[mask].mean()) if mask.any() else None,
                accuracy=float(correct[mask].mean()) if mask.any() else None,
            )
            for index, mask in enumerate(inside)
        )


def compute_metrics(
    y_true: npt.ArrayLike,
    probabilities: npt.ArrayLike,
    labels: Sequence[str],
    weights: npt.ArrayLike | None = None,
) -> dict[str, FloatArray]:
    """Return every metric of `metric_names(labels)`, each float64 [B] (B is 1 without weights).

    `y_true` is int [N] in 0..C-1, `probabilities` float [N, C] with rows summing to 1,
    `weights` [B, N] >= 0. All metrics lie in [0, 1] but ``brier`` [0, 2] and ``log_loss`` (nats).

    - ``balanced_accuracy``: mean recall over the classes present under the weights. Like
      ``macro_f1`` and ``macro_auc`` it skips absent classes instead of counting them as 0.
    - ``auc``: the Mann-Whitney statistic with ties counted half (Hanley & McNeil 1982);
      ``macro_auc`` is the plain one-vs-rest mean, not the pairwise M of Hand & Till 2001; for
      two labels it is the AUC of the last.
    - ``expected_calibration_error``: top-1 confidence in 15 equal-width bins (Guo et al. 2017,
      equation 3).
    - ``brier``: squared distance summed over classes (Brier 1950), for two labels twice the
      one-sided form. ``log_loss``: a probability below 1.2e-7 counts as 1.2e-7.
    - ``recall``, ``specificity``: of one label against the rest, by arg-max.

    Raises `DataError` naming what was received and what was expected.
    """
    return MetricScorer(y_true, probabilities, labels).compute(weights)
