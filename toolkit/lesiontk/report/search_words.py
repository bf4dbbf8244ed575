"""The words of a search, in its page and on the command line."""

from __future__ import annotations

from lesiontk.recipe.gate_grammar import DEVICE, parse_constraint
from lesiontk.report.formatting import (
    DASH,
    count_things,
    format_decimal,
    format_latency,
    format_number,
)
from lesiontk.report.wording import name_metric
from lesiontk.search.criteria import Violation
from lesiontk.search.result import SearchResult, TestEstimate
from lesiontk.search.space import show_setting
from lesiontk.search.trial_record import COMPLETE, INFEASIBLE, Assignment, TrialRecord
from lesiontk.search.winner import WinnerEstimate

_DEVICE_WORDS = {
    "p90_ms": "latency, 90th percentile (ms)",
    "median_ms": "median latency (ms)",
    "size_mb": "file size (MB)",
    "peak_memory_mb": "peak memory (MB)",
}


def name_figure(name: str) -> str:
    """Return a metric or a device figure in words, with its unit."""
    return _DEVICE_WORDS.get(name) or name_metric(name)


def name_key(key: str) -> str:
    """Return a key of a recipe as a short label: ``prune keep_macs`` of its dotted name."""
    parts = key.split(".")
    return " ".join(parts[-2:]) if parts[0] == "compress" else parts[-1]


def show_figure(name: str, value: float | None) -> str:
    """Return a figure with its unit; metrics with three decimals."""
    if value is None:
        return DASH
    unit = DEVICE.get(name)
    if unit == "ms":
        return format_latency(value)
    return f"{format_number(value)} {unit}" if unit else format_decimal(value)


def show_test(estimate: TestEstimate | None) -> tuple[str, str]:
    """Return the value and the interval of a test estimate."""
    if estimate is None or estimate.value is None:
        return DASH, ""
    ends = (estimate.low, estimate.high)
    interval = "" if None in ends else "–".join(format_decimal(end) for end in ends)
    return format_decimal(estimate.value), interval


def describe_assignment(assignment: Assignment) -> str:
    """Return a candidate's values on one line."""
    return ", ".join(f"{name_key(k)} {show_setting(v)}" for k, v in assignment.items())


def describe_trial(trial: TrialRecord) -> str:
    """Return in words why a trial's engine is not to be chosen; empty for one that can be."""
    if trial.state == INFEASIBLE:
        return "; ".join(map(_describe_violation, trial.violations))
    return trial.reason if trial.state != COMPLETE else ""


def _describe_violation(violation: Violation) -> str:
    gate = parse_constraint(violation.constraint)
    limit = f", limit {show_figure(gate.metric, violation.limit)}" if gate.relative else ""
    return f"{gate}: {show_figure(gate.metric, violation.measured)}{limit}"


def describe_winner(winner: WinnerEstimate) -> str:
    """Return what the choice among candidates does to the estimate of the best one."""
    name = name_metric(winner.metric)
    best = "lowest" if winner.lower_is_better else "highest"
    if winner.candidates == 1:
        return f"One engine meets the constraints; nothing was chosen by {name}."
    return (
        f"The {best} {name} of {winner.candidates} engines is {format_decimal(winner.measured)} on "
        f"validation; corrected for the choice among them it is {format_decimal(winner.corrected)}"
        f" (the choice explains {format_decimal(winner.optimism)}). The same engine is the best in "
        f"{100 * winner.chosen_again:.0f} % of {winner.resamples} resamples of lesions."
    )


def describe_search(result: SearchResult) -> str:
    """Return what was compared, and what was left."""
    counts = result.counts
    feasible = counts.get(COMPLETE, 0)
    parts = [f"{number} {state}" for state, number in counts.items() if state != COMPLETE]
    text = (
        f"{count_things(len(result.trials), 'trial')} led to "
        f"{count_things(result.candidates, 'different engine')}; "
        f"{count_things(feasible, 'trial')} {'meets' if feasible == 1 else 'meet'} all constraints"
    )
    return text + (f" ({', '.join(parts)})." if parts else ".")


def describe_readings(result: SearchResult) -> str:
    """Return when the test images were read, and by how many engines."""
    if not result.readings:
        return "The test images have not been read."
    first = result.readings[0]
    text = (
        f"The test images were read once, by {count_things(len(first.engines), 'engine')} of the "
        f"front, after {count_things(first.candidates, 'candidate')} had been compared on "
        "validation."
    )
    if len(result.readings) == 1:
        return text
    times = ", ".join(f"after {r.candidates} by {len(r.engines)}" for r in result.readings)
    return (
        f"The test images were read {len(result.readings)} times ({times} engines): the search "
        "went on after the first reading, so the later test figures may be too good."
    )
