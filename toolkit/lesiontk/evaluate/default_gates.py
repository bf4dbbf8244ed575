"""The default gates of a recipe, for any task, with the reasons for their margins."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from lesiontk.recipe.gate_grammar import (
    AT_PARENT_SPECIFICITY,
    DEFAULT_GATES,
    Gate,
    check_metric,
    name_group,
    parse_gate,
    parse_gates,
)


@dataclass(frozen=True, slots=True)
class DefaultGate:
    """A gate against the parent; with `of_positive` its metric is that of the positive labels."""

    metric: str
    margin: float
    confidence: float
    why: str
    of_positive: bool = False

    def for_task(self, positive: Sequence[str]) -> Gate:
        """Return the gate for a task with these positive labels."""
        label = f"[{name_group(positive)[0]}]" if self.of_positive else ""
        return Gate(f"{self.metric}{label}", self.margin, True, self.confidence)


DEFAULTS = (
    DefaultGate(
        "macro_auc",
        0.01,
        0.95,
        "The ranking of each class, at any threshold. The paired bound is narrow enough for a "
        "margin of one point of AUC, also for compressed networks.",
    ),
    DefaultGate(
        AT_PARENT_SPECIFICITY,
        0.05,
        0.95,
        "Sensitivity to malignant lesions at the parent's specificity on validation. It is the "
        "smallest round margin that a split with some 190 malignant lesions can show for an "
        "engine that was only quantized; a compressed network must be no worse to pass.",
        of_positive=True,
    ),
    DefaultGate(
        "log_loss",
        0.05,
        0.95,
        "The calibration of the probabilities: rounding that changes no predicted class can still "
        "make them overconfident. In nats per image.",
    ),
)


def expand_gates(entries: Iterable[str], positive: Sequence[str]) -> tuple[str, ...]:
    """Return the gates of a recipe's list; ``default`` is replaced by those of the task.

    A recipe's own line replaces the default gate on the same metric.
    """
    listed = list(entries)
    own = [parse_gate(entry) for entry in listed if entry != DEFAULT_GATES]
    bounded = {(gate.metric, gate.relative) for gate in own}
    standard = [default.for_task(positive) for default in DEFAULTS]
    kept = [gate for gate in standard if (gate.metric, gate.relative) not in bounded]
    return tuple(map(str, [*(kept if DEFAULT_GATES in listed else ()), *own]))


def check_gates_of_task(
    entries: Iterable[str], task: str, labels: Sequence[str], positive: Sequence[str]
) -> None:
    """Raise `UsageError` for a gate on a metric that is not defined for the task."""
    for gate in parse_gates(expand_gates(entries, positive)):
        check_metric(gate, task, labels, positive)
