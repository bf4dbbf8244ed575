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
from lesiontk.evaluate.metrics import FloatArray, IntArray, divide
from lesiontk.evaluate.operating_point import OperatingPoint, OperatingPointScorer
from lesiontk.evaluate.subgroups import subtract
from lesiontk.stage import EngineName

ACCURACY = "accuracy"
COMPARED = (ACCURACY, "sensitivity", "specificity")
"""Accuracy by arg-max, sensitivity and specificity each at the engine's own threshold.

The images are balanced over the classes, and so is the accuracy: a mean over classes of some twenty
lesions each would have intervals that are several times as wide.
"""


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

    SCHEMA: ClassVar[int] = 2

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

    def list_shown(self, metric: str = ACCURACY) -> list[CorruptedResult]:
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
class _Share:
    """A metric that is the share of right images `among` some.

    `right` is bool [2, K, N] of parent and engine, `among` bool [N].
    """

    right: BoolArray
    among: BoolArray

    def compute(self, weights: FloatArray) -> FloatArray:
        """Return float64 [2, K, B] under weights [B, N]."""
        hits = (self.right & self.among).reshape(-1, len(self.among)).astype(np.float64)
        shares = divide(weights @ hits.T, weights @ self.among[:, np.newaxis].astype(np.float64))
        return shares.T.reshape(*self.right.shape[:2], len(weights))


def estimate_excess(
    outputs: PairedOutputs, *, resamples: int, confidence: float, seed: int
) -> tuple[dict[str, CleanResult], list[dict[str, CorruptionLoss]], dict[str, Estimate]]:
    """Return what happens on clean images, under each corruption, and on average over these.

    Each maps the metrics of `COMPARED` to their results. If few lesions are discordant, the
    interval of an excess also covers that of two independent differences (`subtract`), because a
    bootstrap is too narrow there; few on clean images concern all. Raises `DataError` for bad
    inputs, `UsageError` for bad settings.
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
            corrupted = np.mean(engine[1:] - parent[1:], axis=0)
            found[f"{name} corrupted"] = corrupted
            found[f"{name} overall"] = corrupted - found[f"{name} difference 0"]
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
                        before, after, [metric.among], lesion, confidence
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

    def excess(name: str, own: str, corrupted: str) -> Estimate:
        clean, difference = f"{name} difference 0", f"{name} {corrupted}"
        estimate = found[f"{name} {own}"]
        if clean in limited or difference in limited:
            return _cover(estimate, subtract(found[difference], found[clean]))
        return estimate

    results = [
        {
            name: CorruptionLoss(
                found[f"{name} parent {k}"],
                found[f"{name} engine {k}"],
                excess(name, f"excess {k}", f"difference {k}"),
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
    return clean, results, {name: excess(name, "overall", "corrupted") for name in metrics}


def _list_metrics(outputs: PairedOutputs) -> dict[str, _Share]:
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
    shares = (
        _Share(top1 == outputs.y_true, np.ones(len(truth), dtype=np.bool_)),
        _Share(called, truth),
        _Share(~called, ~truth),
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
