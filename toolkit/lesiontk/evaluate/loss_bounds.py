"""The loss of an engine with one-sided bounds, for each metric of a gate.

The statistic of a gate is the loss against the parent, or the negative of a value that should be
high. The bounds are the wider of two: those of a bootstrap of whole lesions, paired if there is a
parent, and exact ones (`exact_bounds`) for shares of lesions and means of shares.

Other metrics have no exact bound, and a bootstrap repeats the sample: on 5 lesions that lose little
it shows a small loss at any confidence. Therefore the share of unseen lesions, which may behave
differently from all observed ones, is bounded exactly, and the cost of each is that of an
uninformative prediction: `cost_of_unseen`. That is an assumption, not a bound.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from lesiontk.evaluate.bootstrap import check_groups, iterate_bootstrap_weights
from lesiontk.evaluate.exact_bounds import (
    BoolArray,
    OneSided,
    bound_loss,
    bound_mean,
    bound_share,
    bound_unseen,
    count_effective,
    pair_shares,
)
from lesiontk.evaluate.gate_statistic import Bound, GateStatistic
from lesiontk.evaluate.metrics import FloatArray, IntArray, MetricScorer
from lesiontk.evaluate.operating_point import (
    OPERATING_METRICS,
    OperatingPoint,
    OperatingPointScorer,
)
from lesiontk.evaluate.relevant import find_relevant
from lesiontk.recipe.gate_grammar import (
    AT_PARENT_SPECIFICITY,
    Gate,
    is_of_positive,
)
from lesiontk.recipe.metric import METRICS

Scoring = Callable[[FloatArray | None], Mapping[str, FloatArray]]
"""Maps weights [B, N] of the images, or None for ones, to metric -> [B]."""


@dataclass(frozen=True, slots=True)
class Points:
    """The thresholds of a gate on the positive labels.

    `parent` and `child` are frozen on validation, as deployed; `at_specificity` is the child's
    threshold at the parent's validation specificity.
    """

    parent: OperatingPoint | None = None
    child: OperatingPoint | None = None
    at_specificity: OperatingPoint | None = None


@dataclass(frozen=True, slots=True)
class Predictions:
    """The probabilities of an engine, and of its parent if any, on the same N images.

    `y_true` int [N], `child` and `parent` probabilities float [N, C], `labels` C names, `groups`
    the N lesions, `positive` the labels that a threshold separates from the rest.
    """

    y_true: npt.NDArray[np.int64]
    child: npt.NDArray[np.float32]
    labels: Sequence[str]
    groups: Sequence[str]
    positive: Sequence[str]
    parent: npt.NDArray[np.float32] | None = None
    points: Points = Points()


def cost_of_unseen(gate: Gate, classes: int) -> float:
    """Return the assumed cost of a lesion that behaves differently from all observed ones.

    It is `Metric.cost_of_nothing`, else 1: an area under the curve A loses ``2 u (A - 1/2) <= u``
    if a share u of positives and of negatives gets uninformative ranks. Precision, F1 and the
    calibration error lose at most u, too.
    """
    cost = METRICS.get(gate.kind).cost_of_nothing if gate.kind in METRICS else None
    return 1.0 if cost is None else cost(classes)


class LossEstimator:
    """Parent and child, scored once on the same draws of lesions, for the statistic of any gate."""

    def __init__(self, predictions: Predictions, *, resamples: int, seed: int) -> None:
        self.predictions = predictions
        self.lesion: IntArray = check_groups(predictions.groups, len(predictions.y_true))
        draws = Draws(predictions.groups, 0 if int(self.lesion.max()) == 0 else resamples, seed)
        points = predictions.points
        self.child = Scorer(predictions, predictions.child, points.child, draws)
        self.parent = self.at_specificity = None
        if predictions.parent is not None:
            self.parent = Scorer(predictions, predictions.parent, points.parent, draws)
            if points.at_specificity is not None:
                self.at_specificity = Scorer(
                    predictions, predictions.child, points.at_specificity, draws
                )

    def measure(self, gate: Gate) -> GateStatistic | None:
        """Return the statistic that the gate limits; None if the images or the points do not define
        it."""
        child = self._of_child(gate)
        before = self.parent if gate.relative else None
        if child is None or (gate.relative and before is None):
            return None
        metric = self._name(gate)
        scores = child.score(metric)
        parent_scores = before.score(metric) if before is not None else 0.0
        among, of = self._relevant(gate)
        if scores is None or parent_scores is None or not among.any():
            return None
        statistic = (1.0 if gate.lower_is_better else -1.0) * (scores - parent_scores)
        value, samples = float(statistic[0]), statistic[1:]
        if math.isnan(value):
            return None
        defined = np.sort(samples[~np.isnan(samples)])
        if 2 * defined.size < samples.size:
            defined = np.zeros(0)
        lesions = len(np.unique(self.lesion[among]))
        exact = self._bound_exactly(gate, child, before)
        if exact is not None:
            return GateStatistic(value, defined, exact, lesions, of)
        unseen = self._bound_unseen(gate, value, count_effective(self.lesion[among]))
        return GateStatistic(value, defined, unseen, lesions, of, assumed=True)

    def _of_child(self, gate: Gate) -> Scorer | None:
        return self.at_specificity if gate.kind == AT_PARENT_SPECIFICITY else self.child

    def _name(self, gate: Gate) -> str:
        """Return the metric's name of `Scorer`."""
        if not is_of_positive(gate, self.predictions.positive):
            return gate.metric
        if gate.kind == "auc" and gate.label in self.predictions.labels:
            return gate.metric  # needs no threshold
        return "sensitivity" if gate.kind == AT_PARENT_SPECIFICITY else gate.kind

    def _relevant(self, gate: Gate) -> tuple[BoolArray, str]:
        predictions = self.predictions
        return find_relevant(gate, predictions.y_true, predictions.labels, predictions.positive)

    def _bound_exactly(self, gate: Gate, child: Scorer, parent: Scorer | None) -> Bound | None:
        metric = self._name(gate)
        if metric == "balanced_accuracy":
            present = np.unique(self.predictions.y_true)
            before = None if parent is None else parent.right
            parts = [
                self._bound_share(self.predictions.y_true == label, child.right, before)
                for label in present
            ]
            return lambda confidence, factor: bound_mean([p(confidence, factor) for p in parts])
        among, _ = self._relevant(gate)
        after = child.find_right(metric)
        if after is None:
            return None
        known = None if parent is None else parent.find_right(metric)
        return self._bound_share(among, after, known)

    def _bound_share(self, among: BoolArray, after: BoolArray, before: BoolArray | None) -> Bound:
        """Return bounds of the loss in a share of `among`; without `before`, of the share
        missed."""
        if before is not None:
            paired = pair_shares(before, after, among, self.lesion)
            return lambda confidence, factor: bound_loss(paired.scale(factor), confidence)
        missed, n = float((~after)[among].mean()), count_effective(self.lesion[among])

        def bound(confidence: float, factor: float) -> OneSided:
            share = bound_share(missed, n * factor, confidence)
            return OneSided(share.value - 1, share.low - 1, share.high - 1)

        return bound

    def _bound_unseen(self, gate: Gate, value: float, lesions: float) -> Bound:
        cost = cost_of_unseen(gate, len(self.predictions.labels))
        most = 1.0 if gate.lies_in_unit else math.inf
        least = -most
        if not gate.relative:
            least, most = (0.0, most) if gate.lower_is_better else (least, 0.0)

        def bound(confidence: float, factor: float) -> OneSided:
            reach = cost * bound_unseen(lesions * factor, confidence)
            return OneSided(value, max(least, value - reach), min(most, value + reach))

        return bound


@dataclass(frozen=True, slots=True)
class Draws:
    """Draws of whole lesions; equal fields give equal draws."""

    groups: Sequence[str]
    resamples: int
    seed: int

    def score(self, compute: Scoring) -> dict[str, FloatArray]:
        """Return metric -> [1 + resamples]: the value, then that of each draw."""
        chunks = [compute(None)]
        if self.resamples:
            chunks += map(
                compute,
                iterate_bootstrap_weights(self.groups, resamples=self.resamples, seed=self.seed),
            )
        return {name: np.concatenate([chunk[name] for chunk in chunks]) for name in chunks[0]}


class Scorer:
    """One engine's predictions at one point; each family of metrics is computed on demand.

    With a point there are also ``sensitivity``, ``specificity`` and ``auc`` of the positive labels.
    """

    def __init__(
        self,
        predictions: Predictions,
        probabilities: npt.ArrayLike,
        point: OperatingPoint | None,
        draws: Draws,
    ) -> None:
        self._draws = draws
        self._metrics = MetricScorer(predictions.y_true, probabilities, predictions.labels)
        self.right: BoolArray = self._metrics.top1 == self._metrics.y_true
        self._at_point = (
            None
            if point is None
            else OperatingPointScorer(point, predictions.y_true, probabilities, predictions.labels)
        )

    @cached_property
    def _by_metric(self) -> dict[str, FloatArray]:
        return self._draws.score(self._metrics.compute)

    @cached_property
    def _by_metric_at_point(self) -> dict[str, FloatArray]:
        return {} if self._at_point is None else self._draws.score(self._at_point.compute)

    def score(self, metric: str) -> FloatArray | None:
        """Return a metric's value and resamples, [1 + B]; None if it needs a missing point."""
        if metric in OPERATING_METRICS:
            return self._by_metric_at_point.get(metric)
        return self._by_metric[metric]

    def find_right(self, metric: str) -> BoolArray | None:
        """Return which images [N] count as correct in a share of images; None for other metrics."""
        if metric in ("sensitivity", "specificity") and self._at_point is not None:
            called_right: BoolArray = self._at_point.called == self._at_point.truth
            return called_right
        if metric == "accuracy" or metric.startswith("recall["):
            return self.right
        if metric.startswith("specificity["):
            label = metric.removeprefix("specificity[").removesuffix("]")
            rejected: BoolArray = self._metrics.top1 != self._metrics.labels.index(label)
            return rejected
        return None
