"""The sensitivity of each layer to int8, and the layers that stay in higher precision."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from lesiontk.document import Record
from lesiontk.evaluate.search_criterion import CriterionResult


@dataclass(frozen=True, slots=True)
class LayerSensitivity(Record):
    """The effect of quantizing one layer alone: the mean change of a probability, the share of
    images that keep their class, and the change of balanced accuracy.
    """

    layer: str
    mean_drift: float
    top1_agreement: float
    balanced_accuracy: float


@dataclass(frozen=True, slots=True)
class Trial(Record):
    """A set of layers `kept` in higher precision, and the criteria of the resulting engine."""

    DERIVED: ClassVar[tuple[str, ...]] = ("passed",)

    kept: tuple[str, ...]
    criteria: tuple[CriterionResult, ...]

    @property
    def passed(self) -> bool:
        """Whether every criterion was met."""
        return all(result.met for result in self.criteria)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sensitivity(Record):
    """The search for the fewest layers in the precision `kept_in`.

    Each of the `layers` was quantized alone and evaluated on `images` validation images; sets of
    them on `validation` images. `kept` is None if no set that was tried is sufficient, `untried` is
    the next set if the budget ended the search. `outcome` is the result as a sentence.
    """

    backend: str
    layers: int
    images: int
    validation: int
    kept: tuple[str, ...] | None
    kept_in: str
    trials: tuple[Trial, ...]
    untried: tuple[str, ...] | None
    outcome: str
