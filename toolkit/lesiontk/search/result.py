"""The result of a search: its trials, the front, and what the choice does to the estimates."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lesiontk.document import Record
from lesiontk.errors import UsageError
from lesiontk.recipe.gate_grammar import DEVICE, Gate, parse_constraint
from lesiontk.search.criteria import (
    Criteria,
    Figures,
    find_front,
    list_violations,
    measure_violation,
    parse_constraints,
)
from lesiontk.search.trial_record import COMPLETE, INFEASIBLE, RUNNING, STATES, TrialRecord
from lesiontk.search.winner import WinnerEstimate


@dataclass(frozen=True, slots=True)
class SearchTask(Record):
    """The task of all candidates: its labels, and those that a threshold separates."""

    name: str
    labels: tuple[str, ...]
    positive: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class TestEstimate(Record):
    """A metric on the test images, with its interval over lesions."""

    __test__ = False  # not a test for pytest

    value: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True, slots=True)
class TestFigures(Record):
    """What a chosen engine measures on the `n` test images of `lesions` lesions."""

    __test__ = False  # not a test for pytest

    engine: str
    evaluation: str
    n: int
    lesions: int
    metrics: Mapping[str, TestEstimate]


@dataclass(frozen=True, slots=True)
class TestReading(Record):
    """One reading of the test images: by which engines, after how many candidates."""

    __test__ = False  # not a test for pytest

    candidates: int
    engines: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchResult(Record):
    """A search: its space, its trials, and the engines that no other dominates.

    `front` are numbers of trials, in the order of the first objective, the best first. `candidates`
    counts different engines that were measured. `winners` has the best engine of each objective
    that is measured on validation images; `without_winners` says why there is none. `tests` maps
    engines to their test figures, `importance` an objective to each key's share of its variance.
    """

    name: str
    space: Mapping[str, Any]
    task: SearchTask
    objectives: tuple[str, ...]
    constraints: tuple[str, ...]
    trials: tuple[TrialRecord, ...]
    candidates: int
    front: tuple[int, ...]
    winners: tuple[WinnerEstimate, ...] = ()
    without_winners: str = ""
    tests: Mapping[str, TestFigures] = field(default_factory=dict)
    readings: tuple[TestReading, ...] = ()
    importance: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    @property
    def varied(self) -> tuple[str, ...]:
        """The keys that vary."""
        return tuple(self.space["vary"])

    @property
    def figure_names(self) -> tuple[str, ...]:
        """The metrics and device figures that the search is about, objectives first."""
        constrained = (parse_constraint(text).metric for text in self.constraints)
        return tuple(dict.fromkeys([*self.objectives, *constrained]))

    @property
    def counts(self) -> dict[str, int]:
        """State -> trials, of the states that there are."""
        return count_states(self.trials)

    @property
    def is_running(self) -> bool:
        """Whether a trial is running, or was interrupted."""
        return any(trial.state == RUNNING for trial in self.trials)

    def trial(self, number: int) -> TrialRecord:
        """Return a trial by its number."""
        return next(trial for trial in self.trials if trial.number == number)

    def figures(self, number: int) -> Figures:
        """Return the figures of a trial that has an engine. Raises `ValueError` for others."""
        found = self.trial(number).figures
        if found is None:
            raise ValueError(f"trial {number} has no engine")
        return found


def count_states(trials: Sequence[TrialRecord]) -> dict[str, int]:
    """Return state -> its trials, of the states that there are."""
    found = {state: sum(trial.state == state for trial in trials) for state in STATES}
    return {state: number for state, number in found.items() if number}


def list_measured(trials: Iterable[TrialRecord]) -> dict[str, TrialRecord]:
    """Return engine -> the first trial that led to it; several settings may give one engine."""
    found: dict[str, TrialRecord] = {}
    for trial in trials:
        if trial.figures is not None and trial.state in (COMPLETE, INFEASIBLE):
            found.setdefault(trial.figures.engine, trial)
    return found


def list_front(trials: Iterable[TrialRecord], criteria: Criteria) -> tuple[int, ...]:
    """Return the trials whose engine meets all constraints and is not dominated, best first."""
    feasible = [t for t in list_measured(trials).values() if t.state == COMPLETE]
    figures = [trial.figures for trial in feasible if trial.figures is not None]
    lower = [criteria.lower[name] for name in criteria.objectives]
    points = [[each.value(name) for name in criteria.objectives] for each in figures]
    first = -1.0 if not lower[0] else 1.0
    front = sorted(find_front(points, lower), key=lambda index: first * points[index][0])
    return tuple(feasible[index].number for index in front)


def find_best(result: SearchResult, under: Sequence[str] = ()) -> TrialRecord:
    """Return the trial whose engine is the best in the first objective.

    It meets the constraints of the search and those of `under`. Raises `UsageError` if none does,
    with the engine that is nearest.
    """
    task = result.task
    gates = parse_constraints(under, task.name, task.labels, task.positive)
    own = [parse_constraint(text) for text in result.constraints]
    measured = [t for t in list_measured(result.trials).values() if t.figures is not None]
    if not measured:
        raise UsageError(f"the search {result.name!r} has measured no engine yet.")
    fitting = [
        trial
        for trial in measured
        if trial.state == COMPLETE and not list_violations(gates, _known(trial))
    ]
    objective = result.objectives[0]
    lower = Gate(objective, 0.0).lower_is_better
    if not fitting:
        raise UsageError(_explain_none([*own, *gates], measured))
    sign = 1.0 if lower else -1.0
    return min(fitting, key=lambda trial: (sign * _known(trial).value(objective), trial.number))


def is_measured_on_validation(metric: str) -> bool:
    """Return whether a metric is of validation images, not of the device."""
    return metric not in DEVICE


def _known(trial: TrialRecord) -> Figures:
    if trial.figures is None:
        raise ValueError(f"trial {trial.number} has no engine")
    return trial.figures


def _explain_none(gates: Sequence[Gate], measured: Sequence[TrialRecord]) -> str:
    """Return which constraint is met by the fewest engines, and how near they come."""
    missed = {
        gate: [excess for t in measured if (excess := measure_violation(gate, _known(t))) > 0]
        for gate in gates
    }
    gate = max(missed, key=lambda gate: len(missed[gate]))
    nearest = min(measured, key=lambda t: measure_violation(gate, _known(t)))
    of = f"{len(missed[gate])} of {len(measured)} engines do not meet `{gate}`"
    return (
        f"no engine meets all constraints: {of}; the nearest has {gate.metric} = "
        f"{_known(nearest).value(gate.metric):.4g} (trial {nearest.number}). Relax it, or search "
        "on with more --trials."
    )
