"""Confidence intervals by resampling lesions, not images.

Images of one lesion are correlated. Resampling images would treat them as independent and give
intervals that are too narrow, so whole lesions are drawn (the cluster bootstrap, Field & Welsh
2007) and the interval is the percentile interval (Efron & Tibshirani 1993, chapter 13).

If few lesions have an outcome, a bootstrap underestimates its variation, and for an outcome without
lesions it is zero. Such an interval is widened to the exact one (`lesion_limits`). If there is no
exact one and all resamples agree, there is no interval, instead of one of width 0.

The calibration error is a mean of absolute gaps, so it is biased upward in the sample and again in
each resample. Its interval therefore also covers the basic interval, the resamples mirrored at the
value (Davison & Hinkley 1997, section 5.2). Known limitation: a resample without a rare class
leaves that class out of the balanced accuracy.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

from lesiontk.document import Record
from lesiontk.errors import DataError, UsageError
from lesiontk.evaluate.lesion_limits import Limits, limit_metrics
from lesiontk.evaluate.metrics import (
    FloatArray,
    IntArray,
    MetricScorer,
    ReliabilityBin,
    metric_names,
)
from lesiontk.recipe.metric import METRICS

# The maximum number of (resample, image) weights in memory at once: 8 MB an array.
CHUNK_CELLS = 1_000_000
SMALLEST_WIDTH = 1e-12
"""Resamples that differ by less differ only by rounding."""


@dataclass(frozen=True, slots=True)
class Estimate(Record):
    """A value and its confidence interval; None if undefined."""

    value: float | None
    low: float | None
    high: float | None

    def __post_init__(self) -> None:
        numbers = [x for x in (self.value, self.low, self.high) if x is not None]
        if any(math.isnan(x) for x in numbers) or (self.low is None) != (self.high is None):
            raise ValueError(f"{self} is not an estimate: NaN is None, low and high come together")
        if self.low is not None and self.high is not None and self.low > self.high:
            raise ValueError(f"{self} is not an estimate: low is above high")


@dataclass(frozen=True, slots=True)
class Evaluation(Record):
    """The results of a model on `n` images of `lesions` lesions.

    `metrics` maps each of `metric_names(labels)` to its estimate at level `confidence`; `confusion`
    contains counts with the true labels in rows; `reliability` the 15 bins of the diagram.
    """

    n: int
    lesions: int
    labels: tuple[str, ...]
    metrics: Mapping[str, Estimate]
    confusion: tuple[tuple[int, ...], ...]
    confidence: float
    resamples: int
    seed: int
    reliability: tuple[ReliabilityBin, ...]

    def __post_init__(self) -> None:
        if sorted(self.metrics) != sorted(metric_names(self.labels)):
            raise ValueError(f"metrics are {list(self.metrics)}, not those of {self.labels}")
        if sum(map(sum, self.confusion)) != self.n:
            raise ValueError(f"the sum of confusion {self.confusion} is not {self.n} images")


def check_groups(groups: Sequence[str], images: int | None = None) -> IntArray:
    """Return each image's lesion number, int64 [N], in sorted order of the names.

    Raises `DataError` for no groups, a group without a name, or another number than `images`.
    """
    if len(groups) == 0 or (images is not None and len(groups) != images):
        expected = "one or more" if images is None else f"{images}, one for each image"
        raise DataError(f"groups has {len(groups)} entries; expected {expected}.")
    for index, group in enumerate(groups):
        if not isinstance(group, str) or not group:
            raise DataError(f"groups[{index}] is {group!r}; expected the name of a lesion.")
    names = {name: number for number, name in enumerate(sorted(set(groups)))}
    return np.array([names[group] for group in groups], dtype=np.int64)


def check_resampling(resamples: int, confidence: float) -> None:
    """Raise `UsageError` unless `resamples` can support both percentiles of `confidence`."""
    if not 0 < confidence < 1:
        raise UsageError(f"confidence is {confidence}; expected a number between 0 and 1.")
    fewest = math.ceil(2 / (1 - confidence) - 1e-6)
    if resamples < fewest:
        raise UsageError(
            f"resamples is {resamples}; a {confidence:.6g} interval needs {fewest} or more."
        )


def iterate_bootstrap_weights(
    groups: Sequence[str], *, resamples: int, seed: int, strata: IntArray | None = None
) -> Iterator[FloatArray]:
    """Yield weights float64 [B, N], `resamples` rows in all: the number of draws of each lesion.

    Each row draws as many lesions as there are, with replacement; with `strata`, int [N], as many
    of each stratum as it has (the stratified bootstrap, Davison & Hinkley 1997, section 3.2). The
    rows depend only on the lesions, their strata and `seed`, so two models scored with the same
    arguments are compared in pairs, and a shorter run is the beginning of a longer one. A chunk has
    at most `CHUNK_CELLS` numbers. Raises `DataError` for a lesion in two strata.
    """
    lesion = check_groups(groups)
    if resamples < 1:
        raise UsageError(f"resamples is {resamples}; expected 1 or more.")
    if seed < 0:
        raise UsageError(f"seed is {seed}; expected 0 or more.")
    lesions = int(lesion.max()) + 1
    parts = _divide_lesions(lesion, strata)
    generators = [
        np.random.default_rng(seed if strata is None else [seed, number])
        for number in range(len(parts))
    ]
    chunk = max(1, CHUNK_CELLS // len(lesion))
    for start in range(0, resamples, chunk):
        rows = min(chunk, resamples - start)
        drawn = np.hstack(
            [
                part[generator.integers(len(part), size=(rows, len(part)))]
                for part, generator in zip(parts, generators, strict=True)
            ]
        )
        drawn += np.arange(rows)[:, None] * lesions
        counts = np.bincount(drawn.ravel(), minlength=rows * lesions).reshape(rows, lesions)
        yield counts[:, lesion].astype(np.float64)


def _divide_lesions(lesion: IntArray, strata: IntArray | None) -> list[IntArray]:
    """Return the lesion numbers of each stratum, in order; all of them without strata."""
    if strata is None:
        return [np.arange(int(lesion.max()) + 1)]
    parts = [np.unique(lesion[strata == stratum]) for stratum in np.unique(strata)]
    numbers, counts = np.unique(np.concatenate(parts), return_counts=True)
    if counts.max() > 1:
        raise DataError(
            f"{int((counts > 1).sum())} of {len(numbers)} lesions are in several strata; expected "
            "each in one."
        )
    return parts


def estimate_from_resamples(
    value: float,
    samples: FloatArray,
    confidence: float,
    exact: Limits | None = None,
    biased_upward: bool = False,
) -> Estimate:
    """Return `value` with the percentile interval of `samples`, float64 [B], NaN ignored.

    The interval covers the limits `exact`, if given, and the basic interval, from 0, of a value
    that is `biased_upward`. It is None if the value is undefined, if more than half of the samples
    are, or if it would have width 0.
    """
    if math.isnan(value):
        return Estimate(None, None, None)
    defined = samples[~np.isnan(samples)]
    ends = [] if exact is None else list(exact)
    if 0 < samples.size <= 2 * defined.size:
        tail = (1.0 - confidence) / 2.0
        low, high = np.quantile(defined, [tail, 1.0 - tail]).tolist()
        ends += [low, high]
        if biased_upward:
            ends += [max(0.0, 2 * value - end) for end in (low, high)]
    if not ends or max(ends) - min(ends) < SMALLEST_WIDTH:
        return Estimate(float(value), None, None)
    return Estimate(float(value), min(ends), max(ends))


def estimate_metrics(
    compute: Callable[[FloatArray | None], Mapping[str, FloatArray]],
    groups: Sequence[str],
    *,
    resamples: int,
    confidence: float,
    seed: int,
    limits: Callable[[IntArray, float], Mapping[str, Limits]] = lambda lesion, confidence: {},
    biased_upward: Collection[str] = (),
    strata: IntArray | None = None,
) -> dict[str, Estimate]:
    """Return every metric of `compute` with its interval from draws of whole lesions.

    `compute` maps weights [B, N] of the images, or None for ones, to metric -> float64 [B];
    `groups` are the lesions of the N images. `limits` maps the images' lesion numbers, int64 [N],
    and the confidence to metric -> the limits that its interval must cover, where a bootstrap alone
    is too narrow. `biased_upward` are the metrics with upward bias; `strata` are those of
    `iterate_bootstrap_weights`. With a single lesion no metric has an interval.
    """
    values = compute(None)
    chunks = [
        compute(weights)
        for weights in iterate_bootstrap_weights(
            groups, resamples=resamples, seed=seed, strata=strata
        )
    ]
    lesion = check_groups(groups, len(groups))
    if int(lesion.max()) == 0:
        no_limits = np.full(resamples, np.nan)
        return {
            name: estimate_from_resamples(float(value[0]), no_limits, confidence)
            for name, value in values.items()
        }
    exact = limits(lesion, confidence)
    return {
        name: estimate_from_resamples(
            float(value[0]),
            np.concatenate([c[name] for c in chunks]),
            confidence,
            exact.get(name),
            biased_upward=name in biased_upward,
        )
        for name, value in values.items()
    }


def evaluate_predictions(
    y_true: npt.ArrayLike,
    probabilities: npt.ArrayLike,
    labels: Sequence[str],
    groups: Sequence[str],
    *,
    resamples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Evaluation:
    """Return every metric of `compute_metrics` with its lesion-bootstrap interval.

    `y_true` is int [N], `probabilities` float [N, C], `groups` the N lesion names (an image without
    a lesion is its own group). With a single lesion every interval is None. Raises `DataError` for
    bad inputs, `UsageError` for bad settings.
    """
    check_resampling(resamples, confidence)
    scorer = MetricScorer(y_true, probabilities, labels)
    lesions = int(check_groups(groups, len(scorer.y_true)).max()) + 1
    metrics = estimate_metrics(
        scorer.compute,
        groups,
        resamples=resamples,
        confidence=confidence,
        seed=seed,
        limits=partial(limit_metrics, scorer),
        biased_upward=[
            n for n in metric_names(labels) if METRICS.get(n.partition("[")[0]).grows_by_chance
        ],
    )
    return Evaluation(
        n=len(scorer.y_true),
        lesions=lesions,
        labels=scorer.labels,
        metrics=metrics,
        confusion=tuple(tuple(int(x) for x in row) for row in scorer.count_confusion()),
        confidence=confidence,
        resamples=resamples,
        seed=seed,
        reliability=scorer.bin_reliability(),
    )
