"""The metrics of a candidate on validation images, without a threshold chosen on the same images.

A candidate is chosen by them. A metric at a threshold is therefore cross-fitted: the lesions are
dealt to folds, the threshold of each fold is chosen on the others, and the decisions of all folds
together are scored. With a threshold chosen on the same images, a candidate would keep its parent's
sensitivity by construction.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lesiontk.evaluate.bootstrap import check_groups
from lesiontk.evaluate.exact_bounds import BoolArray
from lesiontk.evaluate.metrics import FloatArray, IntArray, MetricScorer, RankedScores, divide
from lesiontk.evaluate.operating_point import (
    find_positive,
    freeze_operating_point,
    match_specificity,
    score_positive,
)
from lesiontk.recipe.gate_grammar import (
    AT_PARENT_SPECIFICITY,
    DEVICE,
    Gate,
    gate_metrics,
    is_of_positive,
)

FOLDS = 5


@dataclass(frozen=True, slots=True)
class ValidationImages:
    """The N validation images of all candidates.

    `y_true` int [N] are indices into `labels`, `groups` the N lesions, `positive` the labels that a
    threshold separates from the rest, `rule` how it is chosen.
    """

    y_true: IntArray
    groups: Sequence[str]
    labels: Sequence[str]
    positive: Sequence[str]
    rule: str = "youden"


class ValidationScorer:
    """The metrics of one engine, and of its parent if any; probabilities are float [N, C].

    Metrics have the names of gates. Those at a threshold are left out with fewer than two positive
    or two negative lesions, of which no threshold can be cross-fitted.
    """

    def __init__(
        self,
        images: ValidationImages,
        child: npt.ArrayLike,
        parent: npt.ArrayLike | None = None,
    ) -> None:
        self.images = images
        self._child = _Decided(images, child, parent)
        self._parent = None if parent is None else _Decided(images, parent)

    def compute(
        self, weights: FloatArray | None = None, only: str | None = None
    ) -> dict[str, FloatArray]:
        """Return metric -> [B] for `weights` [B, N], or `only` one; NaN where it is undefined."""
        return self._child.compute(weights, only)

    def values(self) -> dict[str, float]:
        """Return each defined metric of the engine."""
        return _defined(self._child.compute())

    def parent_values(self) -> dict[str, float]:
        """Return each defined metric of the parent; empty without one.

        A sensitivity at the parent's specificity is compared with the parent's sensitivity.
        """
        if self._parent is None:
            return {}
        found = _defined(self._parent.compute())
        for name in gate_metrics(self.images.labels, self.images.positive):
            kind, _, label = name.partition("[")
            if kind == AT_PARENT_SPECIFICITY and f"sensitivity[{label}" in found:
                found[name] = found[f"sensitivity[{label}"]
        return found


def deal_folds(groups: Sequence[str], is_positive: BoolArray, folds: int, seed: int) -> IntArray:
    """Return the fold of each image, int [N], with whole lesions and equal shares of positives."""
    lesion = check_groups(groups, len(is_positive))
    rng = np.random.default_rng(seed)
    fold_of = np.zeros(int(lesion.max()) + 1, dtype=np.int64)
    positive = np.zeros(len(fold_of), dtype=bool)
    positive[lesion[is_positive]] = True
    for stratum in (np.flatnonzero(positive), np.flatnonzero(~positive)):
        fold_of[rng.permutation(stratum)] = np.arange(len(stratum)) % folds
    dealt: IntArray = fold_of[lesion]
    return dealt


class _Decided:
    """One engine's probabilities, and its decisions by cross-fitted thresholds."""

    def __init__(
        self,
        images: ValidationImages,
        probabilities: npt.ArrayLike,
        parent: npt.ArrayLike | None = None,
    ) -> None:
        self._names = {
            name: gate
            for name in gate_metrics(images.labels, images.positive)
            if name not in DEVICE and is_of_positive(gate := Gate(name, 0.0), images.positive)
        }
        self._metrics = MetricScorer(images.y_true, probabilities, images.labels)
        self._truth = find_positive(images.y_true, images.labels, images.positive)
        scores = score_positive(probabilities, images.labels, images.positive)
        self._ranked = RankedScores(scores, self._truth)
        self._decisions = _cross_fit(images, np.asarray(probabilities), self._truth, parent)

    def compute(
        self, weights: FloatArray | None = None, only: str | None = None
    ) -> dict[str, FloatArray]:
        own = only is not None and only not in self._names
        kinds = None if only is None else [only.partition("[")[0]] if own else []
        checked = np.ones((1, len(self._truth))) if weights is None else weights
        found = self._metrics.compute(checked, kinds)
        for name, gate in self._names.items():
            if only not in (None, name):
                continue
            if gate.kind == "auc":
                found[name] = self._ranked.compute_auc(checked)
            elif gate.kind in self._decisions:
                among = ~self._truth if gate.kind == "specificity" else self._truth
                right = (self._decisions[gate.kind] == self._truth) & among
                found[name] = divide(checked @ right.astype(float), checked @ among.astype(float))
        return found


def _cross_fit(
    images: ValidationImages,
    probabilities: npt.NDArray[np.float32],
    truth: BoolArray,
    parent: npt.ArrayLike | None,
) -> Mapping[str, BoolArray]:
    """Return metric at a threshold -> which images are called positive, bool [N]."""
    lesion = check_groups(images.groups, len(truth))
    fewest = min(len(np.unique(lesion[truth])), len(np.unique(lesion[~truth])))
    if fewest < 2:
        return {}
    before = None if parent is None else np.asarray(parent)
    fold = deal_folds(images.groups, truth, min(FOLDS, fewest), seed=0)
    scores = score_positive(probabilities, images.labels, images.positive)
    called = np.zeros(len(truth), dtype=bool)
    matched = np.zeros(len(truth), dtype=bool)
    for number in range(int(fold.max()) + 1):
        own, others = fold == number, fold != number
        y_true, labels = images.y_true[others], images.labels
        point = None
        if before is not None:
            point = freeze_operating_point(
                y_true, before[others], labels, images.positive, images.rule
            )
            other = match_specificity(y_true, probabilities[others], labels, point)
            if other is not None:
                matched[own] = scores[own] >= other.threshold
        frozen = freeze_operating_point(
            y_true, probabilities[others], labels, images.positive, images.rule, point
        )
        called[own] = scores[own] >= frozen.threshold
    found = {"sensitivity": called, "specificity": called}
    return found if before is None else {**found, AT_PARENT_SPECIFICITY: matched}


def _defined(values: Mapping[str, FloatArray]) -> dict[str, float]:
    return {name: float(value[0]) for name, value in values.items() if not np.isnan(value[0])}
