"""An operating point: one threshold, frozen on validation and evaluated on other images.

The score of an image is the summed probability of the task's positive (malignant) labels; an image
is positive if its score is at least the threshold. A threshold chosen on the test images would
overestimate sensitivity and specificity.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from lesiontk.document import Record
from lesiontk.errors import DataError, UsageError
from lesiontk.evaluate.bootstrap import (
    Estimate,
    check_groups,
    check_resampling,
    estimate_metrics,
)
from lesiontk.evaluate.exact_bounds import BoolArray
from lesiontk.evaluate.lesion_limits import Limits, drop_missing, limit_auc, limit_few
from lesiontk.evaluate.metrics import (
    ROW_SUM_TOLERANCE,
    FloatArray,
    IntArray,
    RankedScores,
    check_probabilities,
    check_truth,
    divide,
)
from lesiontk.recipe import THRESHOLD_RULE

GIVEN, DEFAULT = "given", "default"
PARENT_SENSITIVITY = "parent_sensitivity"
PARENT_SPECIFICITY = "parent_specificity"
DEFAULT_THRESHOLD = 0.5
OPERATING_METRICS = ("sensitivity", "specificity", "auc")


@dataclass(frozen=True, slots=True)
class ValidationOutcome(Record):
    """The results on the `n` images on which the threshold was chosen, `positives` of them
    positive."""

    n: int
    positives: int
    sensitivity: float
    specificity: float


@dataclass(frozen=True, slots=True)
class OperatingPoint(Record):
    """A threshold on the summed probability of the labels `positive`.

    `rule` is its origin: ``youden``, ``sensitivity:S`` or ``specificity:S`` on `validation`,
    ``parent_sensitivity`` to keep that of the engine's parent, ``parent_specificity`` for a gate at
    equal specificity, ``given`` by the user, or ``default``, which is 0.5 (for two labels the
    arg-max).
    """

    rule: str
    threshold: float
    positive: tuple[str, ...]
    validation: ValidationOutcome | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.threshold <= 1 + ROW_SUM_TOLERANCE:
            raise UsageError(f"the threshold is {self.threshold}; expected a number in [0, 1].")
        if not self.positive:
            raise ValueError("an operating point needs positive labels")


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatingEvaluation(OperatingPoint):
    """The results of a frozen point on test images, `positives` of them positive.

    Sensitivity and specificity are those at the threshold; `auc` is the area under the ROC curve of
    the score, at any threshold.
    """

    positives: int
    sensitivity: Estimate
    specificity: Estimate
    auc: Estimate

    @property
    def point(self) -> OperatingPoint:
        """The frozen point without results."""
        return OperatingPoint(self.rule, self.threshold, self.positive, self.validation)


def score_positive(
    probabilities: npt.ArrayLike, labels: Sequence[str], positive: Sequence[str]
) -> FloatArray:
    """Return each image's summed probability of the `positive` labels, float64 [N].

    `probabilities` is float [N, C] with a column for each of `labels`. Raises `DataError` if the
    positive labels are none, all, or not among the labels.
    """
    array = check_probabilities("probabilities", probabilities, len(labels))
    scores: FloatArray = array[:, _columns(labels, positive)].sum(axis=1)
    return scores


def find_positive(
    y_true: npt.ArrayLike, labels: Sequence[str], positive: Sequence[str]
) -> BoolArray:
    """Return which images are positive, bool [N], from the labels' indices `y_true` [N]."""
    array = np.asarray(y_true)
    truth = check_truth(array, len(array), len(labels))
    return np.isin(truth, _columns(labels, positive))


def _columns(labels: Sequence[str], positive: Sequence[str]) -> list[int]:
    unknown = [label for label in positive if label not in labels]
    if unknown or not 0 < len(set(positive)) < len(labels):
        raise DataError(
            f"the positive labels are {list(positive)}; expected some, and not all, of "
            f"{', '.join(labels)}."
        )
    return [column for column, label in enumerate(labels) if label in positive]


def parse_rule(rule: str) -> tuple[str, Fraction] | None:
    """Return ``sensitivity`` and the exact share of ``sensitivity:0.90``; None for ``youden``."""
    match = re.fullmatch(THRESHOLD_RULE, rule)
    if match is None:
        raise UsageError(
            f"the threshold's rule is {rule!r}; expected youden, sensitivity:S or specificity:S "
            "with 0 < S <= 1."
        )
    return (match["kept"], Fraction(match["share"])) if match["kept"] else None


def choose_threshold(is_positive: BoolArray, scores: FloatArray, rule: str | Fraction) -> float:
    """Return the threshold of `rule` among the scores of `is_positive` [N] images.

    - ``youden``: the largest sensitivity + specificity - 1 (Youden 1950). Of several such
      thresholds the lowest, because a missed melanoma costs more than a false alarm.
    - ``sensitivity:S``, or S as a fraction: the highest threshold whose sensitivity is at least S.
    - ``specificity:S``: the lowest threshold whose specificity is at least S.

    Counts are compared as integers, without rounding. Raises `DataError` if the images are all
    positive or all negative, or a score is not finite.
    """
    wanted = parse_rule(rule) if isinstance(rule, str) else ("sensitivity", rule)
    if is_positive.ndim != 1 or is_positive.shape != scores.shape:
        raise DataError(
            f"truth and scores have shapes {list(is_positive.shape)} and {list(scores.shape)}; "
            "expected the same [N]."
        )
    if not np.isfinite(scores).all():
        raise DataError("the scores contain NaN or infinity; expected finite numbers.")
    positives, negatives = int(is_positive.sum()), int((~is_positive).sum())
    if not positives or not negatives:
        raise DataError(
            f"a threshold cannot be chosen on {positives} positive and {negatives} negative "
            "validation images; expected both. Give validation more images."
        )
    if wanted is not None:
        kept, share = wanted
        if kept == "specificity":
            return _find_lowest(is_positive, scores, math.ceil(share * negatives))
        return float(np.sort(scores[is_positive])[positives - math.ceil(share * positives)])
    candidates = np.unique(scores)
    hits = positives - np.searchsorted(np.sort(scores[is_positive]), candidates, side="left")
    alarms = negatives - np.searchsorted(np.sort(scores[~is_positive]), candidates, side="left")
    # J times both counts; the first maximum is the lowest threshold.
    return float(candidates[np.argmax(hits * negatives - alarms * positives)])


def freeze_operating_point(
    y_true: npt.ArrayLike,
    probabilities: npt.ArrayLike,
    labels: Sequence[str],
    positive: Sequence[str],
    rule: str,
    parent: OperatingPoint | None = None,
) -> OperatingPoint:
    """Return the point of `rule` on validation: `y_true` int [N], probabilities [N, C].

    An engine with a `parent`, frozen on the same images, gets the highest threshold that finds as
    many positives there: applied to the engine itself, the rule could choose another point of a
    flat curve, and the difference would be that of the choice, not of the engine. Raises
    `DataError` as `choose_threshold` does, and for a parent frozen on other images; `UsageError`
    for an unknown rule.
    """
    scores = score_positive(probabilities, labels, positive)
    truth = find_positive(y_true, labels, positive)
    chosen_by: str | Fraction = rule
    if parent is not None:
        known = parent.validation
        if known is None or (known.n, known.positives) != (len(truth), int(truth.sum())):
            raise DataError(
                f"the parent's threshold was frozen on {known}; expected the same {len(truth)} "
                "validation images. Evaluate the parent again."
            )
        rule = PARENT_SENSITIVITY
        chosen_by = Fraction(round(known.sensitivity * known.positives), known.positives)
    threshold = choose_threshold(truth, scores, chosen_by)
    return _freeze(rule, threshold, truth, scores, labels, positive)


def match_specificity(
    y_true: npt.ArrayLike,
    probabilities: npt.ArrayLike,
    labels: Sequence[str],
    parent: OperatingPoint,
) -> OperatingPoint | None:
    """Return an engine's point with at least the `parent`'s specificity on validation.

    It is the lowest such threshold among the engine's scores, to compare sensitivities at equal
    specificity. `y_true` int [N] and `probabilities` float [N, C] are of the images that froze the
    parent's; None if the parent's was not frozen on images.
    """
    known = parent.validation
    scores = score_positive(probabilities, labels, parent.positive)
    truth = find_positive(y_true, labels, parent.positive)
    if known is None or (known.n, known.positives) != (len(truth), int(truth.sum())):
        return None
    true_negatives = round(known.specificity * int((~truth).sum()))
    threshold = _find_lowest(truth, scores, true_negatives)
    return _freeze(PARENT_SPECIFICITY, threshold, truth, scores, labels, parent.positive)


def _find_lowest(is_positive: BoolArray, scores: FloatArray, true_negatives: int) -> float:
    """Return the lowest threshold among the scores with at least so many true negatives.

    It is above all scores if there is none.
    """
    negatives = np.sort(scores[~is_positive])
    above = scores[scores > negatives[true_negatives - 1]] if true_negatives else scores
    return float(above.min() if above.size else np.nextafter(scores.max(), np.inf))


def _freeze(
    rule: str,
    threshold: float,
    truth: BoolArray,
    scores: FloatArray,
    labels: Sequence[str],
    positive: Sequence[str],
) -> OperatingPoint:
    """Return the point at a threshold, with its results on the images on which it was chosen."""
    called = scores >= threshold
    outcome = ValidationOutcome(
        n=len(truth),
        positives=int(truth.sum()),
        sensitivity=float(called[truth].mean()),
        specificity=float((~called[~truth]).mean()),
    )
    chosen = tuple(label for label in labels if label in positive)
    return OperatingPoint(rule, threshold, chosen, outcome)


class Decisions:
    """The images that are positive, and those that are called positive, both bool [N]."""

    def __init__(self, truth: BoolArray, called: BoolArray) -> None:
        self.truth, self.called = truth, called

    def compute(self, weights: FloatArray | None = None) -> dict[str, FloatArray]:
        """Return sensitivity and specificity, [B]; `weights` is [B, N] >= 0, None for ones.

        A metric without positives or negatives is NaN.
        """
        checked = np.ones((1, len(self.truth))) if weights is None else weights
        return {
            "sensitivity": _share(checked, self.called, self.truth),
            "specificity": _share(checked, ~self.called, ~self.truth),
        }

    def limit(self, lesion: IntArray, confidence: float) -> dict[str, Limits]:
        """Return the limits of the metrics that need them, as `limit_metrics` does."""
        return drop_missing(
            {
                "sensitivity": limit_few(self.called, self.truth, lesion, confidence),
                "specificity": limit_few(~self.called, ~self.truth, lesion, confidence),
            }
        )


class OperatingPointScorer(Decisions):
    """Predictions at a frozen point, prepared once and scored under many weight vectors."""

    def __init__(
        self,
        point: OperatingPoint,
        y_true: npt.ArrayLike,
        probabilities: npt.ArrayLike,
        labels: Sequence[str],
    ) -> None:
        scores = score_positive(probabilities, labels, point.positive)
        truth = find_positive(y_true, labels, point.positive)
        if truth.shape != scores.shape:
            raise DataError(f"y_true has {len(truth)} images; expected {len(scores)}.")
        super().__init__(truth, scores >= point.threshold)
        self._ranked = RankedScores(scores, truth)

    def compute(self, weights: FloatArray | None = None) -> dict[str, FloatArray]:
        """Return each of `OPERATING_METRICS`, [B]; see `Decisions.compute`."""
        checked = np.ones((1, len(self.truth))) if weights is None else weights
        return super().compute(checked) | {"auc": self._ranked.compute_auc(checked)}

    def limit(self, lesion: IntArray, confidence: float) -> dict[str, Limits]:
        """Return the limits of the metrics that need them, as `limit_metrics` does."""
        auc = limit_auc(float(self.compute()["auc"][0]), self.truth, lesion, confidence)
        return super().limit(lesion, confidence) | drop_missing({"auc": auc})


def _share(weights: FloatArray, right: BoolArray, among: BoolArray) -> FloatArray:
    """Return the weight of `right` images as a share of all images `among`, [B]."""
    total = weights @ among.astype(np.float64)
    hits = weights @ (right & among).astype(np.float64)
    return divide(hits, total)


def evaluate_operating_point(
    point: OperatingPoint,
    y_true: npt.ArrayLike,
    probabilities: npt.ArrayLike,
    labels: Sequence[str],
    groups: Sequence[str],
    *,
    resamples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> OperatingEvaluation:
    """Return the results of a frozen point on other images, with lesion-bootstrap intervals.

    Arguments and errors are those of `evaluate_predictions`; the threshold is fixed, so the
    intervals exclude the variation of its choice on validation.
    """
    check_resampling(resamples, confidence)
    scorer = OperatingPointScorer(point, y_true, probabilities, labels)
    check_groups(groups, len(scorer.truth))
    estimates = estimate_metrics(
        scorer.compute,
        groups,
        resamples=resamples,
        confidence=confidence,
        seed=seed,
        limits=scorer.limit,
    )
    return OperatingEvaluation(
        **point.field_values(),
        positives=int(scorer.truth.sum()),
        sensitivity=estimates["sensitivity"],
        specificity=estimates["specificity"],
        auc=estimates["auc"],
    )
