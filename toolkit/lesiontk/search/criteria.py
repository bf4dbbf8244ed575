"""Objectives and constraints of a search, and the figures by which candidates are compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from lesiontk.document import Record
from lesiontk.errors import DataError, UsageError, suggest
from lesiontk.recipe.gate_grammar import (
    AT_PARENT_SPECIFICITY,
    DEVICE,
    Gate,
    check_metric,
    gate_metrics,
    parse_constraint,
)

TOLERANCE = 1e-12


@dataclass(frozen=True, slots=True)
class Figures(Record):
    """The figures of one engine: `values` and its parent's on validation, and on this machine.

    `engine`, `model`, `validation` and `parent_validation` are artefacts. `values` has the metrics
    of gates (`images` images, `lesions` lesions), ``median_ms``, ``p90_ms``, ``size_mb`` and
    ``peak_memory_mb``; latency is that of `timings` timings. `others_load` is the share of
    the machine's cores that other programs used meanwhile, None if unknown; `noise` has what
    disturbed the latency, as clauses.
    """

    engine: str
    model: str
    validation: str
    values: Mapping[str, float]
    parent: Mapping[str, float]
    images: int
    lesions: int
    timings: int
    parent_validation: str | None = None
    others_load: float | None = None
    noise: tuple[str, ...] = ()

    def value(self, metric: str) -> float:
        """Return a figure. Raises `DataError` if it was not measured, or is undefined."""
        if metric in DEVICE and metric not in self.values:
            raise DataError(
                f"{metric} of {self.engine} is not known: it is emulated here, or {self.timings} "
                "timings are too few for a percentile; expected a target of this machine, and more "
                "bench.rounds or bench.queries."
            )
        if metric not in self.values:
            raise DataError(
                f"{metric} is undefined on the {self.images} validation images ({self.lesions} "
                "lesions); expected images with and without its labels, of two lesions at least."
            )
        return self.values[metric]


@dataclass(frozen=True, slots=True)
class Violation(Record):
    """A constraint that an engine does not meet: `measured`, and the `limit` for this engine."""

    constraint: str
    measured: float
    limit: float


@dataclass(frozen=True, slots=True)
class Criteria:
    """What a search optimizes, and what an engine must meet."""

    objectives: tuple[str, ...]
    constraints: tuple[Gate, ...] = ()
    lower: Mapping[str, bool] = field(default_factory=dict)

    @classmethod
    def parse(
        cls,
        objectives: Sequence[str],
        constraints: Sequence[str],
        task: str,
        labels: Sequence[str],
        positive: Sequence[str],
    ) -> Criteria:
        """Return the criteria for a task with these labels.

        Raises `UsageError` for an unknown metric, with the nearest name, for a constraint that no
        engine can meet, and for two on one metric.
        """
        known = [
            name
            for name in gate_metrics(labels, positive)
            if not name.startswith(AT_PARENT_SPECIFICITY)
        ]
        for name in objectives:
            if name not in known:
                raise UsageError(
                    f"unknown objective {name!r}; the task {task} has {', '.join(known)}."
                    f"{suggest(name, known)}"
                )
        if len(set(objectives)) < len(objectives):
            raise UsageError(f"an objective is listed twice: {', '.join(objectives)}.")
        gates = parse_constraints(constraints, task, labels, positive)
        return cls(
            tuple(objectives), gates, {name: Gate(name, 0.0).lower_is_better for name in objectives}
        )

    def list_violations(self, figures: Figures) -> tuple[Violation, ...]:
        """Return the constraints that an engine does not meet."""
        return list_violations(self.constraints, figures)


def parse_constraints(
    texts: Sequence[str], task: str, labels: Sequence[str], positive: Sequence[str]
) -> tuple[Gate, ...]:
    """Return the constraints of lines; errors as `Criteria.parse`."""
    gates = tuple(map(parse_constraint, texts))
    for number, gate in enumerate(gates):
        check_metric(gate, task, labels, positive)
        if gate.of_device and gate.limit <= 0:
            raise UsageError(
                f"the constraint `{gate}` cannot be met: {gate.metric} is above 0 "
                f"{DEVICE[gate.kind]} for every engine."
            )
        for earlier in gates[:number]:
            if (earlier.metric, earlier.relative) == (gate.metric, gate.relative):
                raise UsageError(
                    f"two constraints limit {gate.metric}: `{earlier}` and `{gate}`; expected one."
                )
    return gates


def measure_violation(gate: Gate, figures: Figures) -> float:
    """Return by how much an engine misses a constraint, at most 0 if it meets it."""
    sign = 1.0 if gate.lower_is_better else -1.0
    missed = sign * (figures.value(gate.metric) - find_limit(gate, figures))
    return 0.0 if abs(missed) < TOLERANCE else missed


def find_limit(gate: Gate, figures: Figures) -> float:
    """Return the bound of a constraint for this engine; a relative one is that of its parent."""
    if not gate.relative:
        return gate.limit
    if gate.metric not in figures.parent:
        raise DataError(explain_no_parent(gate, figures.engine))
    sign = 1.0 if gate.lower_is_better else -1.0
    return figures.parent[gate.metric] + sign * gate.limit


def explain_no_parent(gate: Gate, engine: str) -> str:
    """Return in words that a relative constraint does not apply to an engine."""
    return (
        f"`{gate}` compares with a parent, but {engine} has none; expected a bound "
        "without `parent`, or an engine of another precision than its model."
    )


def list_violations(gates: Sequence[Gate], figures: Figures) -> tuple[Violation, ...]:
    """Return the constraints that an engine does not meet."""
    return tuple(
        Violation(str(gate), figures.value(gate.metric), find_limit(gate, figures))
        for gate in gates
        if measure_violation(gate, figures) > 0
    )


def find_front(points: Sequence[Sequence[float]], lower: Sequence[bool]) -> tuple[int, ...]:
    """Return the indices of the points that no other dominates, in their order.

    A point is dominated if another is as good in every objective and better in one; `lower` says
    for each objective whether lower is better. Of equal points the first is on the front.
    """
    signed = [tuple(x if low else -x for x, low in zip(p, lower, strict=True)) for p in points]
    return tuple(
        index
        for index, point in enumerate(signed)
        if not any(
            (all(a <= b for a, b in zip(other, point, strict=True)) and other != point)
            or (other == point and place < index)
            for place, other in enumerate(signed)
        )
    )
