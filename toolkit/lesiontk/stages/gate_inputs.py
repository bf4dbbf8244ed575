"""The engines of a benchmark to which gates apply, and the gates' input for each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lesiontk.backends.engine_facts import EngineFacts
from lesiontk.bench.benchmark import FULL_PRECISION
from lesiontk.evaluate.device_gate import DeviceFigures
from lesiontk.evaluate.gate import GateInput
from lesiontk.evaluate.loss_bounds import Points, Predictions
from lesiontk.evaluate.operating_point import match_specificity
from lesiontk.recipe.gate_grammar import parse_gate
from lesiontk.records import Artefact
from lesiontk.stage import EngineName
from lesiontk.stages.evaluate import (
    VALIDATION_PREDICTIONS,
    read_operating_point,
    read_predictions,
)


def list_gated(
    engines: Mapping[EngineName, Artefact], references: Mapping[EngineName, EngineName | None]
) -> tuple[EngineName, ...]:
    """Return the targets to which gates apply: engines of reduced precision or of a compressed
    network.

    Without such engines, they apply to all.
    """
    reduced = tuple(
        target
        for target, reference in references.items()
        if reference
        and (
            engines[target].read_facts(EngineFacts).precision != FULL_PRECISION
            or reference.reference
        )
        and not target.reference
    )
    return reduced or tuple(engines)


def _is_whole(engine: Artefact) -> bool:
    return engine.read_facts(EngineFacts).precision == FULL_PRECISION


def drop_losses(gates: Sequence[str], judged: Sequence[GateInput]) -> tuple[str, ...]:
    """Return the gates without those on a loss if no engine has a reference."""
    if any(entry.parent for entry in judged):
        return tuple(gates)
    return tuple(gate for gate in gates if not parse_gate(gate).relative)


def collect_gate_input(
    target: str,
    reference: str | None,
    positive: Sequence[str],
    evaluations: Mapping[str, Artefact],
    figures: DeviceFigures,
) -> GateInput:
    """Return the input of the gates on an engine, with its parent's predictions, if any."""
    truth, child, groups, _, labels = read_predictions(evaluations[target])
    known = read_operating_point(evaluations[reference]) if reference else None
    matched = None
    if known is not None:
        on_validation = read_predictions(evaluations[target], VALIDATION_PREDICTIONS)
        matched = match_specificity(on_validation[0], on_validation[1], labels, known)
    return GateInput(
        target,
        reference,
        Predictions(
            truth,
            child,
            labels,
            groups,
            positive,
            read_predictions(evaluations[reference])[1] if reference else None,
            Points(known, read_operating_point(evaluations[target]), matched),
        ),
        figures,
    )
