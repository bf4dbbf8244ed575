"""How much an engine loses, with one-sided bounds: of each metric that a gate can name.

All is said as *badness*: the loss against the parent, or the negative of a value that should be
high. The bounds are the wider of two: those of a bootstrap of whole lesions, paired where there is
a parent, and exact ones (`exact_bounds`) for shares of lesions and means of such. A metric that is
no share has no exact bound, and a bootstrap repeats what it saw: on 5 lesions that lose little it
shows a small loss with any confidence. So the share of lesions that may behave otherwise than all
that were seen is bounded exactly, and each is taken to cost as much as an answer that says nothing:
`cost_of_unseen`. That is an assumption, not a bound.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from lesiontk.evaluate.badness import Badness, Bound
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
    """The thresholds that a gate on the positive labels needs.

    `parent` and `child` are frozen on validation, as they are deployed; `at_specificity` is the
    child's at which its validation specificity is the parent's.
    """

    parent: OperatingPoint | None = None
    child: OperatingPoint | None = None
    at_specificity: OperatingPoint | None = None


@dataclass(frozen=True, slots=True)
class Answers:
    """What an engine, and its parent where there is one, answered on the same N images.

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
    """Return what a lesion is taken to cost that behaves otherwise than all that were seen.

    It is `Metric.cost_of_nothing`, else 1: an area under the curve A loses ``2 u (A - 1/2) <= u``
    if a share u of positives and of negatives gets ranks that say nothing. Precision, F1 and the
    calibration error lose u at most, too.
    """
    cost = METRICS.get(gate.kind).cost_of_nothing if gate.kind in METRICS else None
    return 1.0 if cost is None else cost(classes)


class Judge:
    """Parent and child scored once on the same draws of lesions; then any gate's badness."""

    def __init__(self, answers: Answers, *, resamples: int, seed: int) -> None:
        self.answers = answers
        self.lesion: IntArray = check_groups(answers.groups, len(answers.y_true))
        draws = Draws(answers.groups, 0 if int(self.lesion.max()) == 0 else resamples, seed)
        points = answers.points
        self.child = Scorer(answers, answers.child, points.child, draws)
        self.parent = self.at_specificity = None
        if answers.parent is not None:
            self.parent = Scorer(answers, answers.parent, points.parent, draws)
            if points.at_specificity is not None:
                self.at_specificity = Scorer(answers, answers.child, points.at_specificity, draws)

    def measure(self, gate: Gate) -> Badness | None:
        """Return the badness that the gate limits; None where the images or the points lack it."""
        child = self._of_child(gate)
        before = self.parent if gate.relative else None
        if child is None or (gate.relative and before is None):
            return None
        metric = self._name(gate)
        scores = child.score(metric)
        theirs = before.score(metric) if before is not None else 0.0
        among, of = self._relevant(gate)
        if scores is None or theirs is None or not among.any():
            return None
        badness = (1.0 if gate.lower_is_better else -1.0) * (scores - theirs)
        value, samples = float(badness[0]), badness[1:]
        if math.isnan(value):
            return None
        defined = np.sort(samples[~np.isnan(samples)])
        if 2 * defined.size < samples.size:
            defined = np.zeros(0)
        lesions = len(np.unique(self.lesion[among]))
        exact = self._bound_exactly(gate, child, before)
        if exact is not None:
            return Badness(value, defined, exact, lesions, of)
        unseen = self._bound_unseen(gate, value, count_effective(self.lesion[among]))
        return Badness(value, defined, unseen, lesions, of, assumed=True)

    def _of_child(self, gate: Gate) -> Scorer | None:
        return self.at_specificity if gate.kind == AT_PARENT_SPECIFICITY else self.child

    def _name(self, gate: Gate) -> str:
        """Return the metric's name of `Scorer`."""
        if not is_of_positive(gate, self.answers.positive):
            return gate.metric
        if gate.kind == "auc" and gate.label in self.answers.labels:
            return gate.metric  # needs no threshold
        return "sensitivity" if gate.kind == AT_PARENT_SPECIFICITY else gate.kind

    def _relevant(self, gate: Gate) -> tuple[BoolArray, str]:
        answers = self.answers
        return find_relevant(gate, answers.y_true, answers.labels, answers.positive)

    def _bound_exactly(self, gate: Gate, child: Scorer, parent: Scorer | None) -> Bound | None:
        metric = self._name(gate)
        if metric == "balanced_accuracy":
            present = np.unique(self.answers.y_true)
            before = None if parent is None else parent.right
            parts = [
                self._bound_share(self.answers.y_true == label, child.right, before)
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
        """Return bounds of a loss in a share of `among`; without `before`, of the share missed."""
        if before is not None:
            paired = pair_shares(before, after, among, self.lesion)
            return lambda confidence, factor: bound_loss(paired.scale(factor), confidence)
        missed, n = float((~after)[among].mean()), count_effective(self.lesion[among])

        def bound(confidence: float, factor: float) -> OneSided:
            share = bound_share(missed, n * factor, confidence)
            return OneSided(share.value - 1, share.low - 1, share.high - 1)

        return bound

    def _bound_unseen(self, gate: Gate, value: float, lesions: float) -> Bound:
        cost = cost_of_unseen(gate, len(self.answers.labels))
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
    """Draws of whole lesions: the same for all who score with equal fields."""

    groups: Sequence[str]
    resamples: int
    seed: int

    def score(self, compute: Scoring) -> dict[str, FloatArray]:
        """Return metric -> [1 + resamples]: the plain value, then that of each draw."""
        chunks = [compute(None)]
        if self.resamples:
            chunks += map(
                compute,
                iterate_bootstrap_weights(self.groups, resamples=self.resamples, seed=self.seed),
            )
        return {name: np.concatenate([chunk[name] for chunk in chunks]) for name in chunks[0]}


class Scorer:
    """One engine's answers at one point; each family of metrics is scored when one is asked for.

    With a point there are ``sensitivity``, ``specificity`` and ``auc`` of the positive labels too.
    """

    def __init__(
        self,
        answers: Answers,
        probabilities: npt.ArrayLike,
        point: OperatingPoint | None,
        draws: Draws,
    ) -> None:
        self._draws = draws
        self._metrics = MetricScorer(answers.y_true, probabilities, answers.labels)
        self.right: BoolArray = self._metrics.top1 == self._metrics.y_true
        self._at_point = (
            None
            if point is None
            else OperatingPointScorer(point, answers.y_true, probabilities, answers.labels)
        )

    @cached_property
    def _by_metric(self) -> dict[str, FloatArray]:
        return self._draws.score(self._metrics.compute)

    @cached_property
    def _by_metric_at_point(self) -> dict[str, FloatArray]:
        return {} if self._at_point is None else self._draws.score(self._at_point.compute)

    def score(self, metric: str) -> FloatArray | None:
        """Return a metric's value and resamples, [1 + B]; None for one that needs a point."""
        if metric in OPERATING_METRICS:
            return self._by_metric_at_point.get(metric)
        return self._by_metric[metric]

    def find_right(self, metric: str) -> BoolArray | None:
        """Return which images [N] count as right in a share of images; None for other metrics."""
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
