"""Whether compression costs more under a corruption than on clean images.

An engine and its full-precision parent predict the same images, clean and corrupted. Per corruption
and severity the change from clean to corrupted is estimated of both, and their difference: the
engine's change minus the parent's, negative if the engine suffers more. All are scored on the same
draws of whole lesions, so that what images have in common cancels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

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
from lesiontk.evaluate.metrics import FloatArray, IntArray, divide, mean_of_defined
from lesiontk.evaluate.operating_point import OperatingPoint, OperatingPointScorer
from lesiontk.evaluate.subgroups import subtract
from lesiontk.stage import EngineName

BALANCED_ACCURACY = "balanced_accuracy"
COMPARED = (BALANCED_ACCURACY, "sensitivity", "specificity")
"""Balanced accuracy by arg-max, sensitivity and specificity each at the engine's own threshold."""


@dataclass(frozen=True, slots=True)
class CleanResult(Record):
    """One metric of parent and engine on clean images, and engine - parent."""

    parent: float | None
    engine: float | None
    difference: Estimate


@dataclass(frozen=True, slots=True)
class CorruptionLoss(Record):
    """What a corruption changes of one metric, corrupted - clean; negative is worse.

    `excess` is the engine's change minus the parent's: negative if the engine loses more.
    """

    parent: Estimate
    engine: Estimate
    excess: Estimate


@dataclass(frozen=True, slots=True)
class CorruptedResult(Record):
    """The results under one `corruption` of a `severity` 1 to 3; `strength` states it."""

    corruption: str
    severity: int
    strength: str
    losses: Mapping[str, CorruptionLoss]


@dataclass(frozen=True, slots=True, kw_only=True)
class Robustness(Record):
    """The engine `target` against its `parent` on clean and on corrupted test images.

    `images` are the `n` used images by label, of `lesions` lesions, out of `available` test images;
    with fewer they are balanced over the labels. `reference` is True if the parent is of the
    network before compression. `clean` maps each of `COMPARED` to its results on clean images,
    `overall` to the mean excess over all `results`. Intervals are at level `confidence` each.
    """

    SCHEMA: ClassVar[int] = 1

    target: str
    parent: str
    reference: bool
    n: int
    lesions: int
    available: int
    images: Mapping[str, int]
    split_hash: str
    clean: Mapping[str, CleanResult]
    results: tuple[CorruptedResult, ...]
    overall: Mapping[str, Estimate]
    confidence: float
    resamples: int
    seed: int

    @property
    def parent_name(self) -> EngineName:
        """The parent in a benchmark."""
        return EngineName(self.parent, reference=self.reference)

    def list_shown(self, metric: str = BALANCED_ACCURACY) -> list[CorruptedResult]:
        """Return the results whose interval of the excess is below 0."""
        return [
            result
            for result in self.results
            if (high := result.losses[metric].excess.high) is not None and high < 0
        ]


@dataclass(frozen=True, slots=True)
class PairedOutputs:
    """Probabilities float32 [K, N, C] of `parent` and `engine`: K conditions, the clean one first.

    `y_true` int [N] are indices of the C `labels`, `groups` the N lesions, `points` the operating
    points of parent and engine, each frozen on its own outputs.
    """

    y_true: IntArray
    parent: NDArray[np.float32]
    engine: NDArray[np.float32]
    labels: Sequence[str]
    groups: Sequence[str]
    points: tuple[OperatingPoint, OperatingPoint]

    def __post_init__(self) -> None:
        expected = (len(self.y_true), len(self.labels))
        for name in ("parent", "engine"):
            shape = getattr(self, name).shape
            if len(shape) != 3 or shape[1:] != expected or shape[0] < 2:
                raise DataError(
                    f"the outputs of the {name} have shape {list(shape)}; expected "
                    f"[K, {expected[0]}, {expected[1]}] with clean and K - 1 corrupted images."
                )
        if self.parent.shape != self.engine.shape:
            raise DataError(
                f"parent and engine have outputs {list(self.parent.shape)} and "
                f"{list(self.engine.shape)}; expected the same conditions."
            )


@dataclass(frozen=True, slots=True)
class _Shares:
    """A metric that is the mean, over `kinds`, of the share of right images.

    `right` is bool [2, K, N] of parent and engine; `kinds` are bool [N].
    """

    right: BoolArray
    kinds: Sequence[BoolArray]

    def compute(self, weights: FloatArray) -> FloatArray:
        """Return float64 [2, K, B] under weights [B, N]; a kind without images is left out."""
        flat = self.right.reshape(-1, self.right.shape[-1])
        shares = [
            divide(weights @ (flat & kind).T.astype(np.float64), weights @ kind[:, np.newaxis])
            for kind in self.kinds
        ]
        means = mean_of_defined(np.stack(shares, axis=-1))
        return means.T.reshape(*self.right.shape[:2], len(weights))


def estimate_excess(
    outputs: PairedOutputs, *, resamples: int, confidence: float, seed: int
) -> tuple[dict[str, CleanResult], list[dict[str, CorruptionLoss]], dict[str, Estimate]]:
    """Return what happens on clean images, under each corruption, and on average over these.

    Each maps the metrics of `COMPARED` to their results. Where few lesions
    are discordant, the interval of the excess also covers that of two independent differences
    (`subtract`), because a bootstrap is too narrow there. Raises `DataError` for bad inputs,
    `UsageError` for bad settings.
    """
    check_resampling(resamples, confidence)
    metrics = _list_metrics(outputs)
    conditions = len(outputs.parent)
    limited: set[str] = set()

    def compute(weights: FloatArray | None) -> dict[str, FloatArray]:
        found: dict[str, FloatArray] = {}
        for name, metric in metrics.items():
            ones = np.ones((1, len(outputs.y_true)))
            parent, engine = metric.compute(ones if weights is None else weights)
            found |= {f"{name} parent": parent[0], f"{name} engine": engine[0]}
            for k in range(conditions):
                found[f"{name} difference {k}"] = engine[k] - parent[k]
            for k in range(1, conditions):
                found[f"{name} parent {k}"] = parent[k] - parent[0]
                found[f"{name} engine {k}"] = engine[k] - engine[0]
                found[f"{name} excess {k}"] = (engine[k] - engine[0]) - (parent[k] - parent[0])
            excess = [found[f"{name} excess {k}"] for k in range(1, conditions)]
            found[f"{name} overall"] = np.mean(excess, axis=0)
        return found

    def limit(lesion: IntArray, confidence: float) -> dict[str, Limits]:
        found: dict[str, Limits | None] = {}
        for name, metric in metrics.items():
            parent, engine = metric.right
            for k in range(conditions):
                pairs = {"difference": (parent[k], engine[k])}
                if k:
                    pairs |= {
                        "parent": (parent[0], parent[k]),
                        "engine": (engine[0], engine[k]),
                    }
                for what, (before, after) in pairs.items():
                    found[f"{name} {what} {k}"] = limit_few_discordant(
                        before, after, metric.kinds, lesion, confidence
                    )
        known = drop_missing(found)
        limited.update(known)
        return known

    found = estimate_metrics(
        compute,
        outputs.groups,
        resamples=resamples,
        confidence=confidence,
        seed=seed,
        limits=limit,
    )

    def excess(name: str, k: int) -> Estimate:
        clean, corrupted = f"{name} difference 0", f"{name} difference {k}"
        own = found[f"{name} excess {k}"]
        if clean in limited or corrupted in limited:
            return _cover(own, subtract(found[corrupted], found[clean]))
        return own

    results = [
        {
            name: CorruptionLoss(
                found[f"{name} parent {k}"], found[f"{name} engine {k}"], excess(name, k)
            )
            for name in metrics
        }
        for k in range(1, conditions)
    ]
    clean = {
        name: CleanResult(
            found[f"{name} parent"].value,
            found[f"{name} engine"].value,
            found[f"{name} difference 0"],
        )
        for name in metrics
    }
    overall = {name: found[f"{name} overall"] for name in metrics}
    for name in metrics:
        if overall[name].low is None:
            overall[name] = _average([result[name].excess for result in results])
    return clean, results, overall


def _list_metrics(outputs: PairedOutputs) -> dict[str, _Shares]:
    """Return the metrics of `COMPARED`."""
    pair = (outputs.parent, outputs.engine)
    called = np.array(
        [
            [
                OperatingPointScorer(point, outputs.y_true, condition, outputs.labels).called
                for condition in of
            ]
            for point, of in zip(outputs.points, pair, strict=True)
        ]
    )
    truth = OperatingPointScorer(
        outputs.points[0], outputs.y_true, outputs.parent[0], outputs.labels
    ).truth
    top1 = np.array([of.argmax(axis=2) for of in pair])
    classes = [outputs.y_true == number for number in range(len(outputs.labels))]
    shares = (
        _Shares(top1 == outputs.y_true, classes),
        _Shares(called, [truth]),
        _Shares(~called, [~truth]),
    )
    check_groups(outputs.groups, len(outputs.y_true))
    return dict(zip(COMPARED, shares, strict=True))


def _cover(estimate: Estimate, other: Estimate) -> Estimate:
    """Return the estimate with an interval that covers both."""
    if estimate.value is None or other.low is None or other.high is None:
        return estimate
    if estimate.low is None or estimate.high is None:
        return Estimate(estimate.value, other.low, other.high)
    return Estimate(estimate.value, min(estimate.low, other.low), max(estimate.high, other.high))


def _average(parts: Sequence[Estimate]) -> Estimate:
    """Return the mean of estimates of the same images, as wide as if all erred together."""
    values = [part.value for part in parts if part.value is not None]
    if not values:
        return Estimate(None, None, None)
    lows = [part.low for part in parts if part.low is not None]
    highs = [part.high for part in parts if part.high is not None]
    if len(lows) < len(values):
        return Estimate(float(np.mean(values)), None, None)
    return Estimate(float(np.mean(values)), float(np.mean(lows)), float(np.mean(highs)))
