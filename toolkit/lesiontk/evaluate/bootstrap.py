"""Confidence intervals that resample lesions, not images.

Pictures of one lesion resemble each other. Resampling images would count them as independent and
give intervals that are too narrow, so whole lesions are drawn (the cluster bootstrap, Field & Welsh
2007) and the interval is the percentile interval (Efron & Tibshirani 1993, chapter 13).

Where few lesions have one of the outcomes, a bootstrap sees too little of it, and nothing at all of
what never happened. There an interval is widened to the exact one (`lesion_limits`). Where no exact
one is known and all resamples agree, there is no interval, rather than one of width 0.

The calibration error is the mean of absolute gaps: chance makes it larger, in the images already
and in a resample of them once more. Its interval is therefore also taken from the resamples
mirrored at the value (the basic interval, Davison & Hinkley 1997, section 5.2), and covers both.

Its known limit: a resample that misses a rare class leaves that class out of the balanced accuracy.
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

# Weights of at most this many (resample, image) pairs stand in memory at once: 8 MB an array.
CHUNK_CELLS = 1_000_000
SMALLEST_WIDTH = 1e-12
"""Resamples that differ by less differ by rounding alone."""


@dataclass(frozen=True, slots=True)
class Estimate(Record):
    """A value and its confidence interval; None is what the data cannot tell."""

    value: float | None
    low: float | None
    high: float | None

    def __post_init__(self) -> None:
        numbers = [x for x in (self.value, self.low, self.high) if x is not None]
        if any(math.isnan(x) for x in numbers) or (self.low is None) != (self.high is None):
            raise ValueError(f"{self} is no estimate: NaN is None, low and high come together")
        if self.low is not None and self.high is not None and self.low > self.high:
            raise ValueError(f"{self} is no estimate: low lies above high")


@dataclass(frozen=True, slots=True)
class Evaluation(Record):
    """How a model did on `n` images of `lesions` lesions.

    `metrics` maps each of `metric_names(labels)` to its estimate at level `confidence`;
    `confusion` is counts with truth in rows; `reliability` holds the 15 bins of the diagram.
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
            raise ValueError(f"confusion {self.confusion} does not count {self.n} images")


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
    groups: Sequence[str], *, resamples: int, seed: int
) -> Iterator[FloatArray]:
    """Yield weights float64 [B, N], `resamples` rows in all: how often each lesion was drawn.

    Each row draws as many lesions as there are, with replacement. The rows depend on the lesions
    and `seed` alone, so two models scored with the same arguments are compared in pairs, and a
    shorter run is the beginning of a longer one. A chunk has at most `CHUNK_CELLS` numbers.
    """
    lesion = check_groups(groups)
    if resamples < 1:
        raise UsageError(f"resamples is {resamples}; expected 1 or more.")
    if seed < 0:
        raise UsageError(f"seed is {seed}; expected 0 or more.")
    lesions = int(lesion.max()) + 1
    generator = np.random.default_rng(seed)
    chunk = max(1, CHUNK_CELLS // len(lesion))
    for start in range(0, resamples, chunk):
        rows = min(chunk, resamples - start)
        drawn = generator.integers(lesions, size=(rows, lesions))
        drawn += np.arange(rows)[:, None] * lesions
        counts = np.bincount(drawn.ravel(), minlength=rows * lesions).reshape(rows, lesions)
        yield counts[:, lesion].astype(np.float64)


def estimate_from_resamples(
    value: float,
    samples: FloatArray,
    confidence: float,
    exact: Limits | None = None,
    grows_by_chance: bool = False,
) -> Estimate:
    """Return `value` with the percentile interval of `samples`, float64 [B], NaN ignored.

    The interval covers the limits `exact`, where they are given, and the basic interval, from 0 on,
    of a value that `grows_by_chance`. It is None if the value is
    undefined, if more than half of the samples are, or if it would have width 0.
    """
    if math.isnan(value):
        return Estimate(None, None, None)
    defined = samples[~np.isnan(samples)]
    ends = [] if exact is None else list(exact)
    if 0 < samples.size <= 2 * defined.size:
        tail = (1.0 - confidence) / 2.0
        low, high = np.quantile(defined, [tail, 1.0 - tail]).tolist()
        ends += [low, high]
        if grows_by_chance:
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
    growing: Collection[str] = (),
) -> dict[str, Estimate]:
    """Return every metric of `compute` with its interval from draws of whole lesions.

    `compute` maps weights [B, N] of the images, or None for ones, to metric -> float64 [B];
    `groups` are the lesions of the N images. `limits` maps the images' lesion numbers, int64 [N],
    and the confidence to metric -> the limits that its interval has to cover, where a bootstrap
    alone is too narrow. `growing` are the metrics that chance makes larger. With a single lesion no
    metric has an interval.
    """
    values = compute(None)
    chunks = [
        compute(weights)
        for weights in iterate_bootstrap_weights(groups, resamples=resamples, seed=seed)
    ]
    lesion = check_groups(groups, len(groups))
    if int(lesion.max()) == 0:
        nothing = np.full(resamples, np.nan)
        return {
            name: estimate_from_resamples(float(value[0]), nothing, confidence)
            for name, value in values.items()
        }
    exact = limits(lesion, confidence)
    return {
        name: estimate_from_resamples(
            float(value[0]),
            np.concatenate([c[name] for c in chunks]),
            confidence,
            exact.get(name),
            grows_by_chance=name in growing,
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
    a lesion is a group of its own). With a single lesion there is nothing to resample and every
    interval is None. Raises `DataError` for bad inputs, `UsageError` for bad settings.
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
        growing=[
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
