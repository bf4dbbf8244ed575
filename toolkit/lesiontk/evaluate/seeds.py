"""Trainings of one recipe on one split that differ in their seed, compared on validation.

The spread shows which differences between recipes are chance. The best training is chosen on
validation, which favours it there: its test result is the unbiased one, and no test image is read
here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import ClassVar

from lesiontk.document import Record


@dataclass(frozen=True, slots=True, kw_only=True)
class SeedResult(Record):
    """One training: its seed, its model, its best epoch, and the results on validation there."""

    seed: int
    model: str
    best_epoch: int
    metrics: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Spread(Record):
    """The mean of several trainings, their standard deviation, and the ends of their range."""

    mean: float
    deviation: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SeedComparison(Record):
    """Trainings on the split `split_hash`, judged on its `n` validation images.

    `spread` has each metric over all trainings; `best` is the seed of the highest balanced
    accuracy, the first of equal ones.
    """

    DERIVED: ClassVar[tuple[str, ...]] = ("spread", "best")

    recipe: str
    split_hash: str
    n: int
    results: tuple[SeedResult, ...]

    def __post_init__(self) -> None:
        if len(self.results) < 2:
            raise ValueError(f"{len(self.results)} trainings have no spread; expected 2 or more")

    @property
    def spread(self) -> dict[str, Spread]:
        """Metric -> its spread over the trainings, of those that all have it."""
        shared = [n for n in self.results[0].metrics if all(n in r.metrics for r in self.results)]
        return {name: measure_spread([r.metrics[name] for r in self.results]) for name in shared}

    @property
    def best(self) -> int:
        """The seed of the training with the highest balanced accuracy on validation."""
        return max(self.results, key=lambda result: result.metrics["balanced_accuracy"]).seed


def measure_spread(values: Sequence[float]) -> Spread:
    """Return the spread of two or more values."""
    return Spread(fmean(values), stdev(values), min(values), max(values))
