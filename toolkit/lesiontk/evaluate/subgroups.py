"""Results at the frozen threshold by age, sex and site of the lesion.

A mean hides a group that an engine serves badly. The groups are small, so that their intervals
matter more than their values: a difference between two groups whose intervals overlap shows little.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from lesiontk.document import Record
from lesiontk.evaluate.bootstrap import Estimate
from lesiontk.evaluate.metrics import IntArray
from lesiontk.evaluate.operating_point import OperatingPoint, evaluate_operating_point

AGE, SEX, SITE = "age", "sex", "site"
AGE_BANDS = {"under 40": 40, "40 to 59": 60, "60 and over": np.inf}
"""Name -> the age in years that is above the band."""
UNKNOWN, OTHER = "unknown", "other"
SMALLEST = 20
"""The fewest images of a sex or site that are not counted as other."""


class Person(Protocol):
    """What a data source says of an image's person and lesion; age in years."""

    @property
    def age(self) -> float | None: ...
    @property
    def sex(self) -> str | None: ...
    @property
    def site(self) -> str | None: ...


@dataclass(frozen=True, slots=True)
class SubgroupResult(Record):
    """The results on the `n` test images with one `value` of an `attribute`.

    They are of `lesions` lesions; `positives` of the images are positive. Sensitivity, specificity
    and AUC are None where the group has no image of the kind that they need.
    """

    attribute: str
    value: str
    n: int
    lesions: int
    positives: int
    sensitivity: Estimate
    specificity: Estimate
    auc: Estimate


def name_age(age: float | None) -> str:
    """Return the band of an age in years."""
    if age is None:
        return UNKNOWN
    return next(name for name, end in AGE_BANDS.items() if age < end)


def describe_people(people: Iterable[Person]) -> dict[str, list[str]]:
    """Return attribute -> its value for each image."""
    listed = list(people)
    return {
        AGE: [name_age(person.age) for person in listed],
        SEX: [person.sex or UNKNOWN for person in listed],
        SITE: [person.site or UNKNOWN for person in listed],
    }


def evaluate_subgroups(
    attributes: Mapping[str, Sequence[str]],
    point: OperatingPoint,
    y_true: IntArray,
    probabilities: NDArray[np.float32],
    labels: Sequence[str],
    groups: Sequence[str],
    *,
    resamples: int,
    confidence: float,
    seed: int,
) -> tuple[SubgroupResult, ...]:
    """Return the results by each value of each attribute, the most frequent value first.

    `attributes` maps a name to the values of the N images; ages are `name_age`. An attribute that
    is the same for all images is left out. The other arguments are those of
    `evaluate_operating_point`.
    """
    results = []
    for attribute, values in attributes.items():
        merged = values if attribute == AGE else merge_rare(values)
        counts = Counter(merged)
        order = list(AGE_BANDS) if attribute == AGE else [name for name, _ in counts.most_common()]
        last = [name for name in (OTHER, UNKNOWN) if name in counts]
        if len(counts) < 2:
            continue
        for value in [name for name in order if name in counts and name not in last] + last:
            rows = [row for row, name in enumerate(merged) if name == value]
            found = evaluate_operating_point(
                point,
                y_true[rows],
                probabilities[rows],
                labels,
                [groups[row] for row in rows],
                resamples=resamples,
                confidence=confidence,
                seed=seed,
            )
            results.append(
                SubgroupResult(
                    attribute,
                    value,
                    len(rows),
                    len({groups[row] for row in rows}),
                    found.positives,
                    found.sensitivity,
                    found.specificity,
                    found.auc,
                )
            )
    return tuple(results)


def merge_rare(values: Sequence[str]) -> list[str]:
    """Return the values, with those of fewer than `SMALLEST` images as `OTHER`."""
    counts = Counter(values)
    return [v if v == UNKNOWN or counts[v] >= SMALLEST else OTHER for v in values]
