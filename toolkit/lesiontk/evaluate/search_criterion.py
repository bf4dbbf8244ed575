"""When a search on validation has found enough: a criterion, and no gate.

A search tries many candidates on the validation images, so a test of each at a confidence would say
nothing that still holds of the one it chooses. What it needs is one number a candidate: for each
gate, by how much the measured loss exceeds the margin. Whether the engine that comes of it is good
enough, its gates decide on test.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from lesiontk.document import Record
from lesiontk.evaluate.loss_bounds import Answers, Judge
from lesiontk.recipe.gate_grammar import (
    DEFAULT_GATES,
    Gate,
    is_of_positive,
    parse_gate,
    parse_gates,
)


@dataclass(frozen=True, slots=True)
class CriterionResult(Record):
    """One metric of a candidate: what was measured on validation, and the limit of the gate."""

    gate: str
    measured: float
    limit: float
    met: bool


def list_guiding(entries: Iterable[str]) -> tuple[str, ...]:
    """Return the entries of a recipe's list without bounds of a device, which a search ignores."""
    return tuple(
        entry for entry in entries if entry == DEFAULT_GATES or not parse_gate(entry).of_device
    )


def choose_criteria(gates: Sequence[str], positive: Sequence[str]) -> tuple[str, ...]:
    """Return the gates whose measured value can guide a search on validation.

    Left out are figures of a device, and metrics at a threshold: that is chosen on the very images
    of validation, so that an engine meets them there by construction.
    """
    return tuple(
        str(gate)
        for gate in parse_gates(gates)
        if not gate.of_device and not is_of_positive(gate, positive)
    )


def meet_criteria(answers: Answers, criteria: Sequence[str]) -> tuple[CriterionResult, ...]:
    """Return each criterion's result by the measured value alone.

    A metric of which validation has no images has no result.
    """
    judge = Judge(answers, resamples=0, seed=0)
    return tuple(
        result for gate in parse_gates(criteria) if (result := _meet(judge, gate)) is not None
    )


def _meet(judge: Judge, gate: Gate) -> CriterionResult | None:
    badness = judge.measure(gate)
    if badness is None:
        return None
    sign = 1.0 if gate.relative or gate.lower_is_better else -1.0
    return CriterionResult(
        str(gate), sign * badness.value, gate.limit, badness.value <= sign * gate.limit
    )
