"""Two benchmarks side by side: paired where both are of the same images, else as two samples."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from lesiontk.bench.benchmark import Benchmark, EngineRow
from lesiontk.document import Record
from lesiontk.errors import UsageError
from lesiontk.evaluate.bootstrap import Estimate
from lesiontk.evaluate.comparison import THRESHOLD_METRICS, compare_predictions
from lesiontk.evaluate.operating_point import OperatingPoint
from lesiontk.evaluate.subgroups import subtract
from lesiontk.recipe import EvaluateRule
from lesiontk.stage import EngineName

METRICS = ("accuracy", "balanced_accuracy", "macro_auc")
"""By arg-max; the recall of the critical class and `THRESHOLD_METRICS` are compared, too."""


class Pairing(StrEnum):
    """Whether two benchmarks are of the same images, and can be compared at all."""

    PAIRED = "paired"
    UNPAIRED = "unpaired"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class EngineOutputs:
    """An engine's probabilities float32 [N, C] on its test images, and the frozen threshold.

    `y_true` int [N] are indices of the C labels, `groups` the lesions.
    """

    y_true: NDArray[np.int64]
    outputs: NDArray[np.float32]
    groups: list[str]
    image_ids: list[str]
    point: OperatingPoint


@dataclass(frozen=True, slots=True)
class Side:
    """A benchmark by its `name`, and the outputs of its engines."""

    name: str
    benchmark: Benchmark
    outputs: Mapping[EngineName, EngineOutputs]


@dataclass(frozen=True, slots=True)
class EngineFigures(Record):
    """An engine in one benchmark: cost, and scores on `n` images of `lesions` lesions.

    Latency is the median in ms, None if it was emulated.
    """

    median_ms: float | None
    size_bytes: int
    n: int
    lesions: int
    scores: Mapping[str, Estimate]


@dataclass(frozen=True, slots=True)
class EnginePair(Record):
    """An engine in both benchmarks. `differences` are b - a, negative if b is worse.

    `speedup` is a's median latency over b's, above 1 if b is faster. `changed` counts the images to
    which b gives another class, None if they are not the same.
    """

    engine: str
    a: EngineFigures
    b: EngineFigures
    differences: Mapping[str, Estimate]
    speedup: float | None
    changed: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SideBySide(Record):
    """The benchmarks `a` and `b`, by the names of their artefacts, and the engines of both.

    `reason` says in a sentence how they were compared. Latencies are of separate runs; unless
    `same_machine`, also of different machines. `only_a` and `only_b` are engines that the other
    lacks. Intervals are at level `confidence`.
    """

    a: str
    b: str
    recipe_a: str
    recipe_b: str
    pairing: Pairing
    reason: str
    same_machine: bool
    confidence: float
    engines: tuple[EnginePair, ...]
    only_a: tuple[str, ...] = ()
    only_b: tuple[str, ...] = ()


def compare_benchmarks(a: Side, b: Side, rule: EvaluateRule) -> SideBySide:
    """Return the engines of two benchmarks side by side.

    On the same images the differences are paired by lesion; on others they are those of two
    samples, and wider. Raises `UsageError` if no engine is in both.
    """
    rows_a, rows_b = a.benchmark.by_target, b.benchmark.by_target
    both = [name for name in rows_a if name in rows_b]
    if not both:
        raise UsageError(
            f"{a.name} has the engines {', '.join(rows_a)} and {b.name} has "
            f"{', '.join(rows_b)}; expected an engine in both."
        )
    pairing, reason = _find_pairing(a, b)
    return SideBySide(
        a=a.name,
        b=b.name,
        recipe_a=a.benchmark.recipe,
        recipe_b=b.benchmark.recipe,
        pairing=pairing,
        reason=reason,
        same_machine=a.benchmark.machine == b.benchmark.machine,
        confidence=rule.confidence,
        engines=tuple(_compare_engine(name, a, b, pairing, rule) for name in both),
        only_a=tuple(name for name in rows_a if name not in rows_b),
        only_b=tuple(name for name in rows_b if name not in rows_a),
    )


def _find_pairing(a: Side, b: Side) -> tuple[Pairing, str]:
    """Return how the benchmarks can be compared, and a sentence on why."""
    if a.benchmark.labels != b.benchmark.labels:
        return Pairing.NONE, (
            f"The classes differ ({', '.join(a.benchmark.labels)} and "
            f"{', '.join(b.benchmark.labels)}): scores are shown, and not compared."
        )
    first, second = (next(iter(side.outputs.values())) for side in (a, b))
    if first.image_ids == second.image_ids and np.array_equal(first.y_true, second.y_true):
        return Pairing.PAIRED, (
            f"Both are of the same {len(first.image_ids)} test images: differences are paired by "
            "lesion."
        )
    shared = len(set(first.image_ids) & set(second.image_ids))
    return Pairing.UNPAIRED, (
        f"The test images differ ({len(first.image_ids)} and {len(second.image_ids)}, {shared} in "
        "both): differences are those of two samples, and also contain that of the images."
    )


def _compare_engine(
    name: EngineName, a: Side, b: Side, pairing: Pairing, rule: EvaluateRule
) -> EnginePair:
    rows = [side.benchmark.by_target[name] for side in (a, b)]
    before, after = (_list_figures(row, a.benchmark.critical) for row in rows)
    differences: dict[str, Estimate] = {}
    changed = None
    known = [metric for metric in before.scores if metric in after.scores]
    if rows[0].point.positive != rows[1].point.positive:  # of other questions
        known = [metric for metric in known if metric not in THRESHOLD_METRICS]
    if pairing is Pairing.PAIRED:
        first, second = a.outputs[name], b.outputs[name]
        compared = compare_predictions(
            first.y_true,
            first.outputs,
            second.outputs,
            a.benchmark.labels,
            first.groups,
            resamples=rule.resamples,
            confidence=rule.confidence,
            seed=rule.seed,
            points=(first.point, second.point),
        )
        differences = {m: compared.differences[m] for m in known if m in compared.differences}
        changed = len(compared.changed)
    elif pairing is Pairing.UNPAIRED:
        differences = {m: subtract(after.scores[m], before.scores[m]) for m in known}
    speedup = None
    if before.median_ms is not None and after.median_ms is not None:
        speedup = before.median_ms / after.median_ms
    return EnginePair(name, before, after, differences, speedup, changed)


def _list_figures(row: EngineRow, critical: str) -> EngineFigures:
    names = [*METRICS, f"recall[{critical}]"]
    scores = {name: row.metrics[name] for name in names if name in row.metrics}
    scores |= {name: getattr(row.point, name) for name in THRESHOLD_METRICS}
    timed = row.latency_ms is not None and not row.emulated_by
    return EngineFigures(
        median_ms=row.latency.median if timed else None,
        size_bytes=row.size_bytes,
        n=row.n or 0,
        lesions=row.lesions or 0,
        scores=scores,
    )
