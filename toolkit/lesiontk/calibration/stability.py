"""How much an int8 engine depends on the choice of its calibration images."""

from __future__ import annotations

from dataclasses import dataclass

from lesiontk.document import Record


@dataclass(frozen=True, slots=True)
class DrawScores(Record):
    """Balanced accuracy and recall of the critical class on validation, or their spread."""

    balanced_accuracy: float
    critical_recall: float


@dataclass(frozen=True, slots=True)
class OwnDraw(Record):
    """The recipe's draw: its seed, None for a list, and its engine's scores."""

    seed: int | None
    balanced_accuracy: float
    critical_recall: float


@dataclass(frozen=True, slots=True)
class FurtherDraw(Record):
    """A draw with another `seed`; `shared` images are also in the recipe's draw.

    Agreement and drift compare its engine with the recipe's.
    """

    seed: int
    shared: int
    top1_agreement: float
    mean_drift: float
    balanced_accuracy: float
    critical_recall: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Stability(Record):
    """Engines of `target` from further `draws` of `images` each, evaluated on `validation` images.

    `spread` is the largest difference of the scores among all draws, including the recipe's.
    """

    target: str
    draws: int
    images: int
    validation: int
    own: OwnDraw
    spread: DrawScores
    least_agreement: float
