"""A made-up search: prune, qat and two back ends, with infeasible, failed and pruned trials."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from lesiontk.search.criteria import Criteria, Figures
from lesiontk.search.result import (
    SearchResult,
    SearchTask,
    TestEstimate,
    TestFigures,
    TestReading,
    list_front,
    list_measured,
)
from lesiontk.search.space import parse_space
from lesiontk.search.trial_record import COMPLETE, FAILED, INFEASIBLE, PRUNED, TrialRecord
from lesiontk.search.winner import WinnerEstimate

SPACE = parse_space(
    {
        "vary": {
            "target": ["tflite:int8", "onnx:int8", "tflite:float16"],
            "compress": [[], [{"prune": {}}], [{"prune": {}}, {"qat": {}}]],
            "compress.prune.keep_macs": {"low": 0.3, "high": 0.7, "step": 0.2},
            "calibration.observer": ["min_max", "percentile"],
            "train.learning_rate": {"low": 3e-4, "high": 3e-3, "log": True},
        },
        "objectives": ["balanced_accuracy", "p90_ms"],
        "constraints": ["p90_ms <= 5", "sensitivity[malignant] >= parent - 0.03"],
    }
)
TASK = SearchTask("malignancy", ("malignant", "benign"), ("malignant",))
CRITERIA = Criteria.parse(
    SPACE.objectives, SPACE.constraints, TASK.name, TASK.labels, TASK.positive
)


def make_trial(number: int, rng: np.random.Generator) -> TrialRecord:
    """Return a trial whose figures follow from its values, with noise."""
    target = str(rng.choice(["tflite:int8", "onnx:int8", "tflite:float16"]))
    depth = int(rng.integers(3))
    chain: list[dict[str, dict[str, float]]] = [{"prune": {}}, {"qat": {}}][:depth]
    keep = float(rng.choice([0.3, 0.5, 0.7])) if depth else 1.0
    chosen = {
        "target": target,
        "compress": chain,
        **({"compress.prune.keep_macs": keep} if depth else {}),
        "calibration.observer": str(rng.choice(["min_max", "percentile"])),
        "train.learning_rate": float(10 ** rng.uniform(-3.5, -2.5)),
    }
    if number in (5, 14):
        why = {5: "the training diverged in epoch 2: the loss is not finite", 14: ""}[number]
        stopped = "its training fell behind: balanced_accuracy 0.301 after epoch 3"
        state = FAILED if why else PRUNED
        return TrialRecord(number, state, chosen, reason=why or stopped, seconds=60.0)
    noise = rng.normal(0, 0.01, 2)
    latency = 9 * keep * (1.0 if target == "tflite:float16" else 0.45) * (1 + abs(noise[1]) * 5)
    score = 0.74 - 0.15 * (1 - keep) + noise[0]
    figures = Figures(
        engine=f"engine-{number:012x}",
        model=f"model-{number:012x}",
        validation=f"validation-{number:012x}",
        values={
            "balanced_accuracy": score,
            "sensitivity[malignant]": 0.9 - 0.06 * (1 - keep),
            "p90_ms": latency,
            "median_ms": latency * 0.9,
            "size_mb": 1.4 * keep,
            "peak_memory_mb": 90.0,
        },
        parent={"sensitivity[malignant]": 0.9, "balanced_accuracy": 0.74},
        images=1503,
        lesions=1135,
        timings=640,
        others_load=0.5 if number in (3, 8) else 0.02,
        noise=("other programs used 50% of the cores (limit 10%)",) if number in (3, 8) else (),
    )
    state = INFEASIBLE if CRITERIA.list_violations(figures) else COMPLETE
    violations = CRITERIA.list_violations(figures)
    return TrialRecord(number, state, chosen, figures, violations, host="0f0f", seconds=340.0)


def make_result(trials: int = 24) -> SearchResult:
    """Return a finished search whose front was evaluated once."""
    rng = np.random.default_rng(3)
    made = tuple(make_trial(number, rng) for number in range(trials))
    made = (*made, replace(made[0], number=trials)) if trials else made
    front = list_front(made, CRITERIA)
    measured = list_measured(made)
    engines = [engine for engine, trial in measured.items() if trial.number in front]
    estimates = {
        "balanced_accuracy": TestEstimate(0.67, 0.61, 0.72),
        "sensitivity[malignant]": TestEstimate(0.87, 0.82, 0.91),
    }
    winner = WinnerEstimate("balanced_accuracy", 9, 0.731, 0.722, False, 0.41, 1000)
    return SearchResult(
        name="sample",
        space=SPACE.model_dump(mode="json"),
        task=TASK,
        objectives=SPACE.objectives,
        constraints=SPACE.constraints,
        trials=made,
        candidates=len(measured),
        front=front,
        winners=(winner,) if engines else (),
        without_winners="" if engines else "no engine meets all constraints",
        tests={e: TestFigures(e, "evaluation-1", 1504, 1116, estimates) for e in engines},
        readings=(TestReading(len(measured), tuple(engines)),) if engines else (),
        importance={
            "balanced_accuracy": {"compress": 0.71, "train.learning_rate": 0.2, "target": 0.09},
            "p90_ms": {"target": 0.6, "compress": 0.4, "train.learning_rate": 0.0},
        },
    )
