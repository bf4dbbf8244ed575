"""Gates on an evaluation: of an engine of the workspace against its parent, or of a file alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lesiontk.backends.engine_facts import EngineFacts
from lesiontk.backends.reference_outputs import engine_file
from lesiontk.bench.benchmark import FULL_PRECISION
from lesiontk.evaluate.default_gates import expand_gates
from lesiontk.evaluate.device_gate import DeviceFigures
from lesiontk.evaluate.gate import GateInput, judge_engines
from lesiontk.evaluate.loss_bounds import Predictions
from lesiontk.evaluate.verdict import GateVerdict
from lesiontk.recipe import EvaluateRule
from lesiontk.records import Artefact
from lesiontk.stage import EngineName
from lesiontk.stages.evaluate import read_evaluation, read_operating_point
from lesiontk.stages.gate_inputs import collect_gate_input
from lesiontk.store import Store
from lesiontk.workflow.lineage import model_of

NOT_TIMED = "an evaluation measures no latency and no memory; `lesiontk bench` does"


def judge_file(
    path: Path, predictions: Predictions, gates: Sequence[str], rule: EvaluateRule
) -> tuple[GateVerdict, ...]:
    """Return the verdicts on an engine file and its predictions; empty without gates."""
    figures = DeviceFigures((), path.stat().st_size, None, NOT_TIMED)
    return _judge([GateInput(path.name, predictions=predictions, device=figures)], gates, rule)


def judge_evaluation(
    store: Store, engine: Artefact, evaluation: Artefact, gates: Sequence[str]
) -> tuple[GateVerdict, ...]:
    """Return the verdicts on an engine against its full-precision parent, as in `bench`."""
    target, parent = EngineName(engine.read_facts(EngineFacts).target), None
    evaluations: dict[str, Artefact] = {target: evaluation}
    if gates and (before := find_parent_evaluation(store, engine, evaluation)) is not None:
        named = read_evaluation(before).target
        parent = EngineName(named, reference=named == target)
        evaluations[parent] = before
    positive = read_operating_point(evaluation).positive
    figures = DeviceFigures((), engine_file(engine).stat().st_size, None, NOT_TIMED)
    judged = collect_gate_input(target, parent, positive, evaluations, figures)
    rule = EvaluateRule(**evaluation.manifest.config)
    return _judge([judged], expand_gates(gates, positive), rule)


def find_parent_evaluation(store: Store, engine: Artefact, evaluation: Artefact) -> Artefact | None:
    """Return the evaluation of the full-precision engine that an engine is compared with.

    For an engine of a compressed network it is that of the trained network.
    """
    line = [evaluation]
    while "parent" in line[-1].manifest.parents:
        line.append(store.parent(line[-1], "parent"))
    whole = [e for e in line[1:] if read_evaluation(e).target.endswith(f":{FULL_PRECISION}")]
    own = model_of(store, engine).content
    trained = [e for e in whole if model_of(store, store.parent(e, "engine")).content != own]
    return next(iter(trained or whole), None)


def _judge(
    judged: Sequence[GateInput], gates: Sequence[str], rule: EvaluateRule
) -> tuple[GateVerdict, ...]:
    return tuple(judge_engines(judged, gates, rule)) if gates else ()
