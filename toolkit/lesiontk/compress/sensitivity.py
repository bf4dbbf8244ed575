"""How much int8 harms each layer, and which layers therefore stay in higher precision."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from lesiontk.document import Record
from lesiontk.evaluate.search_criterion import CriterionResult


@dataclass(frozen=True, slots=True)
class LayerSensitivity(Record):
    """What quantizing one layer alone changes.

    These are the mean change of a probability, the share of images that keep their class, and the
    change of balanced accuracy.
    """

    layer: str
    mean_drift: float
    top1_agreement: float
    balanced_accuracy: float


@dataclass(frozen=True, slots=True)
class Trial(Record):
    """A set of layers `kept` in higher precision, and whether the engine then met the criteria."""

    DERIVED: ClassVar[tuple[str, ...]] = ("passed",)

    kept: tuple[str, ...]
    criteria: tuple[CriterionResult, ...]

    @property
    def passed(self) -> bool:
        """Whether every criterion was met."""
        return all(result.met for result in self.criteria)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sensitivity(Record):
    """The search of the fewest layers that stay in the precision `kept_in`.

    Each of the `layers` was quantized alone, judged on so many validation `images`; sets of them
    were judged on `validation` images. `kept` is None where no set that was tried is enough,
    `untried` is the next set where the budget ended the search. `outcome` says so in a sentence.
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
