"""The power of gates on a split: the smallest margin within which each gate can pass.

The assumed engine loses nothing on average, and differs from its parent as published engines did on
HAM10000's validation split (`ASSUMED`). The smallest margin is then the upper bound of a measured
loss of 0: exact for shares of lesions; for other metrics the wider of the assumed cost of unseen
lesions and ``z * spread / sqrt(n)``, where spread is the bootstrap's standard deviation times the
square root of the number of lesions.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import NormalDist
from typing import ClassVar

import numpy as np

from lesiontk.document import Record
from lesiontk.errors import DataError
from lesiontk.evaluate.exact_bounds import (
    BoolArray,
    OneSided,
    PairedShare,
    bound_loss,
    bound_mean,
    bound_share,
    bound_unseen,
    count_effective,
)
from lesiontk.evaluate.loss_bounds import cost_of_unseen
from lesiontk.evaluate.metrics import IntArray
from lesiontk.evaluate.relevant import find_relevant
from lesiontk.recipe.gate_grammar import Gate, is_of_positive, parse_gates

TOLERANCE = 1e-6
SHARES = ("accuracy", "recall", "specificity", "sensitivity")


@dataclass(frozen=True, slots=True)
class Change:
    """The difference of an engine from its parent: the share of lesions lost, and gained, each
    `discordant`, and the `spread` of other losses by metric; `auc` is that of one class.
    """

    discordant: float
    spread: Mapping[str, float] = field(default_factory=dict)


ASSUMED: Mapping[str, Change] = {
    "unchanged": Change(0.0),
    "quantized": Change(0.01, {"macro_auc": 0.0125, "auc": 0.015, "log_loss": 0.13}),
    "compressed": Change(0.08, {"macro_auc": 0.15, "auc": 0.13, "log_loss": 0.93}),
}
"""Name -> change. Measured on the validation split (1,503 images of 1,135 lesions): quantized, as
int8 efficientnet_lite0_7class for ONNX and TensorRT; compressed and quantized, as cnn_7class and
vgg16_7class for TFLite, each against its float network."""


@dataclass(frozen=True, slots=True)
class GatePower(Record):
    """The power of one gate on a split.

    `lesions` is the number of lesions `of` the kind that the metric needs. `alone` and `among` map
    each of `ASSUMED` to the smallest margin that can be shown; for a bound of a value, whose
    `margin` is None, to the required distance of the measured value from the bound. None means that
    it depends on the engine. `alone` is for this gate on one engine, `among` for the first step of
    Holm's adjustment over all `tests`.
    """

    DERIVED: ClassVar[tuple[str, ...]] = ("can_pass",)

    gate: str
    lesions: int
    of: str
    tests: int
    margin: float | None
    alone: Mapping[str, float | None]
    among: Mapping[str, float | None]

    @property
    def can_pass(self) -> dict[str, bool | None]:
        """Whether each kind of engine can pass."""
        return {change: self.shows(change) for change in ASSUMED}

    def shows(self, change: str) -> bool | None:
        """Return whether an engine of that kind can pass; None if that depends on the engine."""
        smallest = self.among[change]
        if smallest is None or self.margin is None:
            return None
        return smallest <= self.margin + TOLERANCE


@dataclass(frozen=True, slots=True)
class TestLesions:
    """The label index and the lesion number of each test image, int64 [N] both."""

    __test__ = False  # not a test for pytest

    y_true: IntArray
    lesion: IntArray
    labels: Sequence[str]
    positive: Sequence[str]

    def __post_init__(self) -> None:
        if not len(self.y_true):
            raise DataError("the split has no test images; expected some to test gates on.")


def compute_power(
    gates: Sequence[str], lesions: TestLesions, engines: int
) -> tuple[GatePower, ...]:
    """Return the power of each gate of a difference or of a value at a confidence.

    `engines` is the number of engines tested together. Device figures, and values without a
    confidence, need no lesions and are left out.
    """
    tested = [g for g in parse_gates(gates) if g.confidence is not None and not g.of_device]
    tests = max(1, engines * len(tested))
    return tuple(_compute(gate, lesions, tests) for gate in tested)


def _compute(gate: Gate, lesions: TestLesions, tests: int) -> GatePower:
    among, of = find_relevant(gate, lesions.y_true, lesions.labels, lesions.positive)
    alpha = 1 - float(gate.confidence or 0)

    def smallest(confidence: float) -> dict[str, float | None]:
        return {
            name: _find_smallest(gate, lesions, among, change, confidence)
            for name, change in ASSUMED.items()
        }

    return GatePower(
        gate=str(gate),
        lesions=len(np.unique(lesions.lesion[among])),
        of=of,
        tests=tests,
        margin=gate.limit if gate.relative else None,
        alone=smallest(1 - alpha),
        among=smallest(1 - alpha / tests),
    )


def _find_smallest(
    gate: Gate, lesions: TestLesions, among: BoolArray, change: Change, confidence: float
) -> float | None:
    """Return the smallest margin, or the required distance from the bound."""
    if not among.any():
        return 1.0
    effective = count_effective(lesions.lesion[among])
    if gate.kind == "balanced_accuracy" and gate.relative:
        classes = [lesions.y_true == index for index in np.unique(lesions.y_true)]
        sizes = [count_effective(lesions.lesion[each]) for each in classes]
        return bound_mean([_bound_discordant(n, change, confidence) for n in sizes]).high
    if gate.kind in SHARES or (is_of_positive(gate, lesions.positive) and gate.kind != "auc"):
        if gate.relative:
            return _bound_discordant(effective, change, confidence).high
        return _find_surplus(gate.limit, effective, confidence)
    if not gate.relative:
        return None
    unseen = cost_of_unseen(gate, len(lesions.labels)) * bound_unseen(effective, confidence)
    if not change.discordant:
        return unseen
    spread = change.spread.get(gate.kind)
    if spread is None:
        return None
    number = len(np.unique(lesions.lesion[among]))
    return max(unseen, NormalDist().inv_cdf(confidence) * spread / math.sqrt(number))


def _bound_discordant(lesions: float, change: Change, confidence: float) -> OneSided:
    return bound_loss(PairedShare(lesions, change.discordant, change.discordant), confidence)


def _find_surplus(value: float, lesions: float, confidence: float) -> float | None:
    """Return the required distance of a share above `value`; None if even a share of 1 is too
    low."""
    low, high = value, 1.0
    if bound_share(1.0, lesions, confidence).low < value:
        return None
    for _ in range(50):
        middle = (low + high) / 2
        if bound_share(middle, lesions, confidence).low >= value:
            high = middle
        else:
            low = middle
    return high - value
