"""Results at the frozen threshold by age, sex and site of the lesion, and by brightness.

A mean hides a group that an engine serves badly. The groups are small, so that their intervals
matter more than their values: a difference between two groups whose intervals overlap shows little.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from lesiontk.calibration.brightness import BANDS
from lesiontk.document import Record
from lesiontk.evaluate.bootstrap import Estimate, estimate_metrics
from lesiontk.evaluate.lesion_limits import Limits, drop_missing, limit_few_discordant
from lesiontk.evaluate.metrics import FloatArray, IntArray, divide
from lesiontk.evaluate.operating_point import (
    OperatingPoint,
    OperatingPointScorer,
    evaluate_operating_point,
)

AGE, SEX, SITE, BRIGHTNESS = "age", "sex", "site", "brightness"
AGE_BANDS = {"under 40": 40, "40 to 59": 60, "60 and over": np.inf}
"""Name -> the age in years that is above the band."""
BANDED: Mapping[str, Sequence[str]] = {AGE: tuple(AGE_BANDS), BRIGHTNESS: BANDS}
"""Attribute -> its values, in order."""
UNKNOWN, OTHER = "unknown", "other"
SMALLEST = 20
"""The fewest images of a site that are not counted as other."""


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


@dataclass(frozen=True, slots=True)
class SubgroupChange(Record):
    """What changed from an engine's parent to the engine on the `n` images of a subgroup.

    `sensitivity` and `specificity` are child - parent, each at its own threshold;
    `sensitivity_beyond` and `specificity_beyond` are what that differs from the change on all
    other images: negative if the subgroup loses more.
    """

    attribute: str
    value: str
    n: int
    positives: int
    sensitivity: Estimate
    specificity: Estimate
    sensitivity_beyond: Estimate
    specificity_beyond: Estimate


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
    for attribute, value, rows in iterate_subgroups(attributes):
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


def compare_subgroups(
    attributes: Mapping[str, Sequence[str]],
    points: tuple[OperatingPoint, OperatingPoint],
    y_true: IntArray,
    parent: NDArray[np.float32],
    child: NDArray[np.float32],
    labels: Sequence[str],
    groups: Sequence[str],
    *,
    resamples: int,
    confidence: float,
    seed: int,
) -> tuple[SubgroupChange, ...]:
    """Return what changed from `parent` to `child` in each subgroup, and more than elsewhere.

    Both are scored on the same draws of whole lesions, in one pass for all subgroups. `points`
    are the parent's and the child's; the other arguments are those of `evaluate_subgroups`.
    """
    scorers = [
        OperatingPointScorer(point, y_true, outputs, labels)
        for point, outputs in zip(points, (parent, child), strict=True)
    ]
    truth = scorers[0].truth
    kinds = {"sensitivity": truth, "specificity": ~truth}
    gained = scorers[1].called.astype(np.float64) - scorers[0].called
    changes = {"sensitivity": gained, "specificity": -gained}
    subgroups = list(iterate_subgroups(attributes))
    inside = np.zeros((len(subgroups), len(truth)), dtype=np.bool_)
    for number, (_, _, rows) in enumerate(subgroups):
        inside[number, rows] = True
    parts = {
        f"{metric} {place} {number}": (metric, among & part)
        for metric, among in kinds.items()
        for place, masks in (("here", inside), ("elsewhere", ~inside))
        for number, part in enumerate(masks)
    }
    columns = np.array([part for _, part in parts.values()], dtype=np.float64).T
    changed = np.array([np.where(part, changes[metric], 0.0) for metric, part in parts.values()]).T

    def compute(weights: FloatArray | None) -> dict[str, FloatArray]:
        """Return the change in each subgroup, and that of the other images, [B]."""
        checked = np.ones((1, len(truth))) if weights is None else weights
        shares = divide(checked @ changed, checked @ columns)
        return dict(zip(parts, shares.T, strict=True))

    def limit(lesion: IntArray, confidence: float) -> dict[str, Limits]:
        before, after = (scorer.called == truth for scorer in scorers)
        return drop_missing(
            {
                name: limit_few_discordant(before, after, [part], lesion, confidence)
                for name, (_, part) in parts.items()
            }
        )

    if not subgroups:
        return ()
    found = estimate_metrics(
        compute, groups, resamples=resamples, confidence=confidence, seed=seed, limits=limit
    )

    def change(metric: str, number: int) -> tuple[Estimate, Estimate]:
        """Return the change here, and what that differs from the change elsewhere."""
        here, elsewhere = (found[f"{metric} {p} {number}"] for p in ("here", "elsewhere"))
        return here, subtract(here, elsewhere)

    results = []
    for number, (attribute, value, rows) in enumerate(subgroups):
        sensitivity, sensitivity_beyond = change("sensitivity", number)
        specificity, specificity_beyond = change("specificity", number)
        results.append(
            SubgroupChange(
                attribute,
                value,
                len(rows),
                int(truth[rows].sum()),
                sensitivity,
                specificity,
                sensitivity_beyond,
                specificity_beyond,
            )
        )
    return tuple(results)


def subtract(here: Estimate, elsewhere: Estimate) -> Estimate:
    """Return the difference of two estimates of disjoint images.

    Its interval adds the squared distances of theirs (MOVER, Zou & Donner 2008), so that it is as
    wide as the exact one of a part with few discordant lesions. Parts of one lesion in both make it
    too wide, not too narrow.
    """
    if here.value is None or elsewhere.value is None:
        return Estimate(None, None, None)
    value = here.value - elsewhere.value
    if here.low is None or here.high is None or elsewhere.low is None or elsewhere.high is None:
        return Estimate(value, None, None)
    below = math.hypot(here.value - here.low, elsewhere.high - elsewhere.value)
    above = math.hypot(here.high - here.value, elsewhere.value - elsewhere.low)
    return Estimate(value, max(-2.0, value - below), min(2.0, value + above))


def iterate_subgroups(
    attributes: Mapping[str, Sequence[str]],
) -> Iterator[tuple[str, str, list[int]]]:
    """Yield attribute, value and rows of each subgroup; the most frequent value comes first.

    Bands are in their order, other and unknown values last. An attribute that is the same for all
    images is left out.
    """
    for attribute, values in attributes.items():
        bands = BANDED.get(attribute, ())
        merged = merge_rare(values) if attribute == SITE else list(values)
        counts = Counter(merged)
        last = [name for name in (OTHER, UNKNOWN) if name in counts]
        order = [name for name in bands or [n for n, _ in counts.most_common()] if name in counts]
        if len(counts) < 2:
            continue
        for value in [name for name in order if name not in last] + last:
            yield attribute, value, [row for row, name in enumerate(merged) if name == value]


def merge_rare(values: Sequence[str]) -> list[str]:
    """Return the values, with those of fewer than `SMALLEST` images as `OTHER`."""
    counts = Counter(values)
    return [v if v == UNKNOWN or counts[v] >= SMALLEST else OTHER for v in values]
