"""The stopping criterion of a search on validation images.

A search tries many candidates on the validation images, so a test of each at a confidence would not
be valid for the chosen one. The criterion is the measured loss of each gate against its margin,
without a test. The gates then test the resulting engine on the test images.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from lesiontk.document import Record
from lesiontk.evaluate.loss_bounds import LossEstimator, Predictions
from lesiontk.recipe.gate_grammar import (
    DEFAULT_GATES,
    Gate,
    is_of_positive,
    parse_gate,
    parse_gates,
)


@dataclass(frozen=True, slots=True)
class CriterionResult(Record):
    """One metric of a candidate: its value on validation, and the limit of the gate."""

    gate: str
    measured: float
    limit: float
    met: bool


def list_guiding(entries: Iterable[str]) -> tuple[str, ...]:
    """Return the entries of a recipe's list without device gates, which a search ignores."""
    return tuple(
        entry for entry in entries if entry == DEFAULT_GATES or not parse_gate(entry).of_device
    )


def choose_criteria(gates: Sequence[str], positive: Sequence[str]) -> tuple[str, ...]:
    """Return the gates whose measured value can guide a search on validation.

    Device figures are left out, and metrics at a threshold, because the threshold is chosen on the
    validation images: they are met there by construction.
    """
    return tuple(
        str(gate)
        for gate in parse_gates(gates)
        if not gate.of_device and not is_of_positive(gate, positive)
    )


def meet_criteria(predictions: Predictions, criteria: Sequence[str]) -> tuple[CriterionResult, ...]:
    """Return each criterion's result by the measured value.

    A metric without validation images has no result.
    """
    estimator = LossEstimator(predictions, resamples=0, seed=0)
    return tuple(
        result for gate in parse_gates(criteria) if (result := _meet(estimator, gate)) is not None
    )


def _meet(estimator: LossEstimator, gate: Gate) -> CriterionResult | None:
    statistic = estimator.measure(gate)
    if statistic is None:
        return None
    sign = 1.0 if gate.relative or gate.lower_is_better else -1.0
    return CriterionResult(
        str(gate), sign * statistic.value, gate.limit, statistic.value <= sign * gate.limit
    )
