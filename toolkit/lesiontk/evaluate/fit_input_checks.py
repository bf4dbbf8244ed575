"""The fit of an engine's input checks, and what they refuse.

Bounds of the quality measures are quantiles of training images. The domain score is chosen on
validation images against procedural images that are not dermoscopic, its threshold on validation
images alone; test images and photographs have no part in either.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from lesiontk.document import Record
from lesiontk.errors import DataError
from lesiontk.evaluate.exact_bounds import bound_share
from lesiontk.evaluate.input_checks import (
    DISTANCE,
    ENERGY,
    PROBABILITY,
    Distance,
    DomainScore,
    find_faults,
    measure_quality,
    score_domain,
)
from lesiontk.evaluate.metrics import RankedScores
from lesiontk.evaluate.signals import Signals

FloatArray = NDArray[np.float64]
RANKS = (4, 16, 64)
"""Numbers of principal axes of the candidate covariances."""
AT_FALSE_REFUSALS = 0.05
"""The rate of false refusals at which the literature compares such scores."""
CONFIDENCE = 0.95
QUANTILES = {
    ("sharpness", "low"),
    ("brightness", "low"),
    ("brightness", "high"),
    ("overexposed", "high"),
    ("underexposed", "high"),
}
"""The bounds that are quantiles of training images; the rate is shared among them."""


@dataclass(frozen=True, slots=True)
class Candidate(Record):
    """A domain score: its `name`, and its mean AUROC against the families used for the choice."""

    name: str
    auroc: float


@dataclass(frozen=True, slots=True)
class ClassRefusals(Record):
    """Of the `n` test images of `label`, those refused for quality and for their domain.

    `upper` is the one-sided 95 % Clopper-Pearson bound of the share of both.
    """

    label: str
    n: int
    poor_quality: int
    out_of_domain: int
    upper: float

    @property
    def share(self) -> float:
        """The share of the images that are refused."""
        return (self.poor_quality + self.out_of_domain) / self.n


@dataclass(frozen=True, slots=True)
class FamilyRefusals(Record):
    """Of `n` images that are not dermoscopic, those refused for quality and for their domain.

    `auroc` is that of the domain score against the test images, `at_5` the share that the score
    alone refuses where it refuses 5 % of the validation images.
    """

    family: str
    n: int
    poor_quality: int
    out_of_domain: int
    auroc: float
    at_5: float
    chosen_on: bool

    @property
    def share(self) -> float:
        """The share of the images that are refused."""
        return (self.poor_quality + self.out_of_domain) / self.n


@dataclass(frozen=True, slots=True, kw_only=True)
class InputChecks(Record):
    """The input checks of the engine `target` in `file`, and what they refuse.

    `images` are those of each subset that were used. `quality` maps measure -> side -> bound.
    `false_refusals` are the shares of validation images refused for quality and domain.
    """

    target: str
    file: str
    images: Mapping[str, int]
    quality: Mapping[str, Mapping[str, float]]
    score: str
    threshold: float
    candidates: tuple[Candidate, ...]
    false_refusals: Mapping[str, float]
    classes: tuple[ClassRefusals, ...]
    families: tuple[FamilyRefusals, ...]


@dataclass(frozen=True, slots=True)
class FittedDomain:
    """The chosen score, its name, and how the candidates compare."""

    domain: DomainScore
    name: str
    candidates: tuple[Candidate, ...] = field(default=())


def measure_all(images: Iterable[NDArray[np.uint8]]) -> dict[str, FloatArray]:
    """Return measure -> float64 [N] of engine inputs uint8 [S, S, 3]."""
    rows = [measure_quality(image) for image in images]
    return {name: np.array([row[name] for row in rows]) for name in rows[0]}


def fit_quality(
    measures: Mapping[str, FloatArray], image_size: int, rate: float
) -> dict[str, dict[str, float]]:
    """Return the bounds of the measures of training images; each refuses an equal part of `rate`.

    The shorter side's bound is the engine's own: a smaller picture would be enlarged.
    """
    part = rate / len(QUANTILES)
    bounds: dict[str, dict[str, float]] = {"shorter_side": {"low": float(image_size)}}
    for name, side in sorted(QUANTILES):
        values = measures[name]
        bound = (
            np.quantile(values, part, method="lower")
            if side == "low"
            else np.quantile(values, 1 - part, method="higher")
        )
        bounds.setdefault(name, {})[side] = float(bound)
    return bounds


def refuse_quality(
    measures: Mapping[str, FloatArray], bounds: Mapping[str, Mapping[str, float]]
) -> NDArray[np.bool_]:
    """Return which images have a fault, bool [N]."""
    count = len(next(iter(measures.values())))
    rows = ({name: float(values[i]) for name, values in measures.items()} for i in range(count))
    return np.array([bool(find_faults(row, bounds)) for row in rows], dtype=bool)


def fit_domain(
    train: Signals,
    targets: NDArray[np.int64],
    validation: Signals,
    others: Mapping[str, Signals],
) -> FittedDomain:
    """Return the score with the best mean AUROC of `validation` against the families `others`.

    `targets` [N] are the classes of the training images. Of equally good ones the first: a score
    that needs no features is preferred.
    """
    candidates = {
        "largest probability": DomainScore(PROBABILITY),
        "energy": DomainScore(ENERGY),
    }
    for unit_length in (False, True):
        kind = "unit-length features" if unit_length else "features"
        for rank in RANKS:
            if rank < min(train.features.shape[1], len(train.features)):
                fitted = fit_distance(train.features, targets, rank, unit_length=unit_length)
                candidates[f"Mahalanobis distance of {kind}, {rank} axes"] = fitted
    scores = {}
    for name, domain in candidates.items():
        known = score_signals(domain, validation)
        found = [measure_auroc(known, score_signals(domain, other)) for other in others.values()]
        scores[name] = float(np.mean(found))
    best = max(scores, key=lambda name: scores[name])
    ranked = tuple(Candidate(name, round(value, 4)) for name, value in scores.items())
    return FittedDomain(candidates[best], best, ranked)


def score_signals(domain: DomainScore, signals: Signals) -> FloatArray:
    """Return the domain score of each image, float64 [N]; larger is stranger."""
    found: FloatArray = score_domain(
        domain, signals.probabilities, signals.features, signals.logits
    )
    return found


def fit_distance(
    features: NDArray[np.float32], targets: NDArray[np.int64], rank: int, *, unit_length: bool
) -> DomainScore:
    """Return a Mahalanobis distance with `rank` axes; its arrays are float32, as they are stored.

    Every class weighs the same in the covariance: weighted by its images, common classes would set
    it, and rare ones would be refused first. The axes beyond `rank` share their mean variance
    (Tipping & Bishop 1999). `unit_length` removes the features' length before.
    """
    values = features.astype(np.float64)
    if unit_length:
        lengths = np.linalg.norm(values, axis=1, keepdims=True)
        values /= np.maximum(lengths, np.finfo(np.float32).tiny)
    classes, members = np.unique(targets, return_inverse=True)
    means = np.stack([values[members == c].mean(axis=0) for c in range(len(classes))])
    rest = values - means[members]
    weights = 1 / (len(classes) * np.bincount(members)[members])
    variances, axes = np.linalg.eigh((rest * weights[:, np.newaxis]).T @ rest)
    variances, axes = variances[::-1], axes[:, ::-1]
    beyond = float(variances[rank:].mean())
    if not variances[rank - 1] > 0 or not beyond > 0:
        raise DataError(
            f"the features of {len(values)} training images vary along fewer than {rank + 1} axes; "
            "expected more images, or a network whose features are not constant."
        )
    fitted = Distance(
        unit_length=unit_length,
        means=means.astype(np.float32),
        axes=axes[:, :rank].T.astype(np.float32),
        variances=variances[:rank].astype(np.float32),
        rest_variance=beyond,
    )
    return DomainScore(DISTANCE, fitted)


def choose_domain_threshold(scores: FloatArray, rate: float) -> float:
    """Return the score beyond which at most a share `rate` of these images is refused."""
    return float(np.quantile(scores, 1 - rate, method="higher"))


def measure_auroc(known: FloatArray, other: FloatArray) -> float:
    """Return the chance that another image scores above a known one; ties count half."""
    scores = np.concatenate([known, other])
    ranked = RankedScores(scores, np.arange(len(scores)) >= len(known))
    return float(ranked.compute_auc(np.ones((1, len(scores))))[0])


def count_class_refusals(
    labels: Sequence[str],
    targets: NDArray[np.int64],
    poor: NDArray[np.bool_],
    strange: NDArray[np.bool_],
) -> tuple[ClassRefusals, ...]:
    """Return the refusals of each class that has images; an image of poor quality counts there."""
    found = []
    for number, label in enumerate(labels):
        own = targets == number
        n = int(own.sum())
        if n:
            faults, unknown = int(poor[own].sum()), int((strange & ~poor)[own].sum())
            upper = bound_share((faults + unknown) / n, n, CONFIDENCE).high
            found.append(ClassRefusals(label, n, faults, unknown, upper))
    return tuple(found)
