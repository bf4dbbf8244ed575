"""Results of a cross-validation: the engines of all folds, each on its own test part, together.

Every image is tested once, by the engine of the fold that has it in its test part.

- Decisions (the predicted class, or positive at the fold's own frozen threshold) are put together
  and counted: accuracy, recalls, balanced accuracy, sensitivity, specificity.
- Rankings are not: scores of different networks are not comparable, and an AUC over all of them
  would compare images of different networks. Each AUC is computed within a fold, and the folds'
  values are averaged (Forman & Scholz 2010, "Apples-to-apples in cross-validation studies", SIGKDD
  Explorations 12(1), section 2).

Two questions have two intervals. What are *these* networks worth? The bootstrap draws lesions
within each fold, so that neither lesions nor folds are torn apart. What is the *procedure* worth,
on other images of this kind? The folds' values vary by training and test images, and are
correlated, because the training parts overlap; their variance is corrected for it, see
`estimate_procedure`.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

import numpy as np
from numpy.typing import NDArray

from lesiontk.document import Record
from lesiontk.errors import DataError
from lesiontk.evaluate.bootstrap import Estimate, check_resampling, estimate_metrics
from lesiontk.evaluate.comparison import Agreement, limit_differences, measure_agreement
from lesiontk.evaluate.lesion_limits import Limits, limit_metrics
from lesiontk.evaluate.metrics import (
    FloatArray,
    IntArray,
    MetricScorer,
    mean_of_defined,
    order_metrics,
)
from lesiontk.evaluate.operating_point import Decisions, OperatingPoint, OperatingPointScorer
from lesiontk.recipe import EvaluateRule
from lesiontk.recipe.metric import METRICS
from lesiontk.stage import EngineName


@dataclass(frozen=True, slots=True)
class FoldPredictions:
    """An engine's outputs on the test part of its fold.

    `y_true` is int [n], `probabilities` float [n, C], `image_ids` and `groups` are the n images and
    their lesions, `point` was frozen on the fold's validation part.
    """

    y_true: IntArray
    probabilities: NDArray[np.float32]
    image_ids: Sequence[str]
    groups: Sequence[str]
    point: OperatingPoint


@dataclass(frozen=True, slots=True, kw_only=True)
class Fold(Record):
    """The parts of a fold, in images and lesions; `positives` of the test images are positive."""

    fold: int
    split_hash: str
    training_images: int
    training_lesions: int
    validation_images: int
    validation_lesions: int
    images: int
    lesions: int
    positives: int


@dataclass(frozen=True, slots=True)
class PooledMetric(Record):
    """A metric, or a difference of one, over all folds.

    `pooled` is the value of these networks on all images, with the interval of a bootstrap of
    lesions within folds. `folds` are the folds' own values, None where undefined, and `deviation`
    is their standard deviation. `procedure` is their mean with the interval of
    `estimate_procedure`.
    """

    pooled: Estimate
    folds: tuple[float | None, ...]
    deviation: float | None
    procedure: Estimate


@dataclass(frozen=True, slots=True, kw_only=True)
class PooledComparison(Record):
    """The engines of a target against their full-precision `parent` of the same fold.

    `reference` is True if the parents are of the networks before compression. `differences` are
    child - parent on the same images and resamples: negative values mean that the child is worse.
    """

    parent: str
    reference: bool
    differences: Mapping[str, PooledMetric]
    agreement: Agreement

    @property
    def parent_key(self) -> EngineName:
        """The parent's name in tables and figures."""
        return EngineName(self.parent, reference=self.reference)


@dataclass(frozen=True, slots=True, kw_only=True)
class PooledEngine(Record):
    """The engines of one target, one of each fold, on all images.

    With `reference` they are of the networks before compression. `thresholds` are those of the
    folds; `confusion` counts images with the true labels in rows.
    """

    target: str
    reference: bool
    metrics: Mapping[str, PooledMetric]
    thresholds: tuple[float, ...]
    confusion: tuple[tuple[int, ...], ...]
    versus_parent: PooledComparison | None = None

    @property
    def key(self) -> EngineName:
        """The name in tables and figures."""
        return EngineName(self.target, reference=self.reference)


@dataclass(frozen=True, slots=True, kw_only=True)
class CrossValidation(Record):
    """The results of a recipe over all folds: `images` of `lesions` lesions, each tested once.

    `images_by_label` counts them, `positive` are the labels that a threshold separates from the
    rest. Intervals are at level `confidence`, of `resamples` draws of lesions within folds.
    """

    recipe: str
    description: str
    task: str
    labels: tuple[str, ...]
    critical: str
    positive: tuple[str, ...]
    images: int
    lesions: int
    images_by_label: Mapping[str, int]
    folds: tuple[Fold, ...]
    engines: tuple[PooledEngine, ...]
    confidence: float
    resamples: int
    seed: int
    synthetic: bool
    lesion_ids_known: bool

    @property
    def by_engine(self) -> dict[EngineName, PooledEngine]:
        """Engine -> its results."""
        return {engine.key: engine for engine in self.engines}


class PooledScorer(Decisions):
    """The engines of all folds, prepared once and scored under many weight vectors.

    `groups` are the lesions and `strata` the folds, 0 to K - 1, of the N images, fold by fold.
    """

    def __init__(self, folds: Sequence[FoldPredictions], labels: Sequence[str]) -> None:
        self.folds = [MetricScorer(f.y_true, f.probabilities, labels) for f in folds]
        self.points = [
            OperatingPointScorer(f.point, f.y_true, f.probabilities, labels) for f in folds
        ]
        super().__init__(
            np.concatenate([point.truth for point in self.points]),
            np.concatenate([point.called for point in self.points]),
        )
        self.whole = MetricScorer(
            np.concatenate([fold.y_true for fold in self.folds]),
            np.concatenate([fold.probabilities for fold in self.folds]),
            labels,
        )
        self.groups = [group for fold in folds for group in fold.groups]
        self.strata = np.repeat(np.arange(len(folds)), [len(fold.y_true) for fold in folds])
        compared = [kind for kind, metric in METRICS.items() if metric.compared]
        self._ranking = [kind for kind in compared if METRICS.get(kind).ranks]
        self._counting = [kind for kind in compared if kind not in self._ranking]

    def compute(self, weights: FloatArray | None = None) -> dict[str, FloatArray]:
        """Return metric -> [B]: the compared ones, sensitivity, specificity, and the AUC of the
        positive score; `weights` is [B, N] >= 0, None for ones."""
        checked = np.ones((1, len(self.truth))) if weights is None else weights
        parts = np.split(checked, np.flatnonzero(np.diff(self.strata)) + 1, axis=1)
        ranked = [
            fold.compute(part, self._ranking) | {"auc": point.compute(part)["auc"]}
            for fold, point, part in zip(self.folds, self.points, parts, strict=True)
        ]
        means = {
            name: mean_of_defined(np.stack([found[name] for found in ranked], axis=-1))
            for name in ranked[0]
        }
        found = self.whole.compute(checked, self._counting) | super().compute(checked) | means
        order = ["balanced_accuracy", "accuracy", *means, "sensitivity", "specificity"]
        return {name: found[name] for name in dict.fromkeys([*order, *found]) if name in found}

    def compute_folds(self) -> list[dict[str, float]]:
        """Return the metrics of `compute` in each fold alone; NaN where undefined."""
        kinds = [*self._counting, *self._ranking]
        return [
            {name: float(value[0]) for name, value in (fold.compute(None, kinds) | at).items()}
            for fold, at in zip(self.folds, (p.compute() for p in self.points), strict=True)
        ]

    def limit(self, lesion: IntArray, confidence: float) -> dict[str, Limits]:
        """Return the exact limits of decisions on few lesions; rankings have none."""
        found = limit_metrics(self.whole, lesion, confidence)
        counted = {n: v for n, v in found.items() if n.partition("[")[0] in self._counting}
        return counted | super().limit(lesion, confidence)


def check_folds(folds: Sequence[FoldPredictions], images: int) -> None:
    """Raise `DataError` unless the folds test each of `images` images once, and no lesion twice."""
    tested = Counter(name for fold in folds for name in fold.image_ids)
    if len(tested) != images or tested.total() != images:
        twice = [name for name, times in tested.items() if times > 1]
        raise DataError(
            f"the folds test {len(tested)} of {images} images, {len(twice)} of them several times "
            f"{twice[:3]}; expected each image once."
        )
    where = Counter(group for fold in folds for group in {*fold.groups})
    if shared := [group for group, times in where.items() if times > 1]:
        raise DataError(
            f"{len(shared)} lesions are in the test parts of several folds: {shared[:3]}; expected "
            "each in one."
        )


def pool_engine(
    engine: EngineName,
    folds: Sequence[FoldPredictions],
    labels: Sequence[str],
    critical: str,
    training: Sequence[int],
    rule: EvaluateRule,
    parent: tuple[EngineName, Sequence[FoldPredictions]] | None = None,
) -> PooledEngine:
    """Return the results of an engine over all folds, also against its parent's.

    `critical` is the label whose recall comes first, `training` are the lesions of the folds'
    training parts, and `parent` the parent with its folds, of the same images.
    """
    check_resampling(rule.resamples, rule.confidence)
    scorer = PooledScorer(folds, labels)
    ratio = fmean(len({*fold.groups}) for fold in folds) / fmean(training)
    versus = None
    if parent is not None:
        versus = _compare(scorer, parent[0], PooledScorer(parent[1], labels), ratio, rule)
    metrics = _summarize(scorer.compute, scorer.compute_folds(), scorer.limit, scorer, ratio, rule)
    return PooledEngine(
        target=engine.target,
        reference=engine.reference,
        metrics={name: metrics[name] for name in order_metrics(metrics, critical)},
        thresholds=tuple(fold.point.threshold for fold in folds),
        confusion=tuple(tuple(int(x) for x in row) for row in scorer.whole.count_confusion()),
        versus_parent=versus,
    )


def _compare(
    child: PooledScorer,
    name: EngineName,
    parent: PooledScorer,
    ratio: float,
    rule: EvaluateRule,
) -> PooledComparison:
    def subtract(weights: FloatArray | None) -> dict[str, FloatArray]:
        old = parent.compute(weights)
        return {name: value - old[name] for name, value in child.compute(weights).items()}

    def limit(lesion: IntArray, confidence: float) -> dict[str, Limits]:
        return limit_differences(
            parent.whole, child.whole, parent, child, lesion=lesion, confidence=confidence
        )

    pairs = zip(child.compute_folds(), parent.compute_folds(), strict=True)
    folds = [{name: new[name] - old[name] for name in new} for new, old in pairs]
    return PooledComparison(
        parent=name.target,
        reference=name.reference,
        differences=_summarize(subtract, folds, limit, child, ratio, rule, lowest=-1.0),
        agreement=measure_agreement(parent.whole.probabilities, child.whole.probabilities),
    )


def _summarize(
    compute: Callable[[FloatArray | None], Mapping[str, FloatArray]],
    folds: Sequence[Mapping[str, float]],
    limit: Callable[[IntArray, float], Mapping[str, Limits]],
    scorer: PooledScorer,
    ratio: float,
    rule: EvaluateRule,
    lowest: float = 0.0,
) -> dict[str, PooledMetric]:
    pooled = estimate_metrics(
        compute,
        scorer.groups,
        resamples=rule.resamples,
        confidence=rule.confidence,
        seed=rule.seed,
        limits=limit,
        strata=scorer.strata,
    )
    found = {}
    for name, estimate in pooled.items():
        values = [fold[name] for fold in folds]
        defined = [value for value in values if not math.isnan(value)]
        found[name] = PooledMetric(
            pooled=estimate,
            folds=tuple(None if math.isnan(value) else value for value in values),
            deviation=stdev(defined) if len(defined) > 1 else None,
            procedure=estimate_procedure(
                defined, ratio, rule.confidence, (lowest, 1.0) if _is_share(name) else None
            ),
        )
    return found


def _is_share(name: str) -> bool:
    kind = name.partition("[")[0]
    return kind not in METRICS or METRICS.get(kind).cost_of_nothing is None


def estimate_procedure(
    values: Sequence[float],
    ratio: float,
    confidence: float,
    ends: tuple[float, float] | None = None,
) -> Estimate:
    """Return the mean of the folds' values with the corrected resampled t interval.

    The variance of the mean is (1/K + `ratio`) S², with the sample variance S² of the K values and
    the number of test lesions over that of training lesions as `ratio`; t has K - 1 degrees of
    freedom (Nadeau & Bengio 2003, "Inference for the generalization error", Machine Learning 52,
    section 4; for cross-validation Bouckaert & Frank 2004). It is an approximation: the variance of
    a K-fold cross-validation has no unbiased estimator (Bengio & Grandvalet 2004). Validation
    lesions are not counted as training, which makes the interval wider. It is cut at the smallest
    and largest possible value, `ends`, and None with fewer than two values or without variation.
    """
    from scipy.special import stdtrit  # slow to import; no help needs it

    if not values:
        return Estimate(None, None, None)
    mean = fmean(values)
    if len(values) < 2 or (deviation := stdev(values)) == 0:
        return Estimate(mean, None, None)
    error = deviation * math.sqrt(1 / len(values) + ratio)
    reach = float(stdtrit(len(values) - 1, (1 + confidence) / 2)) * error
    low, high = ends or (-math.inf, math.inf)
    return Estimate(mean, max(low, mean - reach), min(high, mean + reach))
