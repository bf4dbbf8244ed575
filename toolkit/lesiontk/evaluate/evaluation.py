"""The evaluation of one engine: its metrics, also at its frozen threshold and temperature."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lesiontk.data.tasks import Task
from lesiontk.evaluate.bootstrap import Evaluation, evaluate_predictions
from lesiontk.evaluate.metrics import IntArray, order_metrics
from lesiontk.evaluate.operating_point import (
    OperatingEvaluation,
    OperatingPoint,
    evaluate_operating_point,
)
from lesiontk.evaluate.subgroups import SubgroupResult, evaluate_subgroups
from lesiontk.evaluate.temperature import TemperatureEvaluation, evaluate_temperature
from lesiontk.evaluate.verdict import GateVerdict
from lesiontk.recipe import EvaluateRule


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineEvaluation(Evaluation):
    """The results of the engine `target`: by arg-max, at its frozen point, at its temperature.

    `subset` and `split_hash` identify the images; they are empty for external images. `critical` is
    the label whose sensitivity has priority. `emulated_by` is the runtime that ran instead of the
    engine's own, None without emulation. `gate` contains the verdicts on this engine alone.
    `subgroups` are results by age, sex and site, where the data source has these.
    """

    target: str
    critical: str
    operating_point: OperatingEvaluation
    temperature: TemperatureEvaluation | None = None
    subset: str = ""
    split_hash: str = ""
    emulated_by: str | None = None
    may_have_seen_test: bool = False
    gate: tuple[GateVerdict, ...] = ()
    subgroups: tuple[SubgroupResult, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ExternalEvaluation(EngineEvaluation):
    """An evaluation on external images.

    `seen_images` counts, by subset, images of the engine's own split among them, which are left out
    unless `seen_included`; it is unknown without `split_known`. `failures` are images that could
    not be read, with the reason; `missing_files` are listed images without a file.
    """

    recipe: str
    lesion_ids_known: bool
    split_known: bool
    seen_images: Mapping[str, int] = field(default_factory=dict)
    seen_included: bool = False
    failures: tuple[Mapping[str, str], ...] = ()
    missing_files: tuple[str, ...] = ()
    licence: str = ""
    citation: str = ""


def evaluate_engine(
    target: str,
    task: Task,
    point: OperatingPoint,
    y_true: IntArray,
    probabilities: NDArray[np.float32],
    groups: Sequence[str],
    rule: EvaluateRule,
    temperature: float | None = None,
    attributes: Mapping[str, Sequence[str]] | None = None,
) -> EngineEvaluation:
    """Return the evaluation of an engine's predictions, at `point` too.

    `y_true` [N] are indices into the task's labels, the columns of `probabilities` [N, C]; `groups`
    are the N lesions. The critical label comes first in each kind of metric. With a `temperature`
    the calibration error of the scaled probabilities is also estimated. `attributes` maps a name to
    the values of the N images, for results by subgroup.
    """
    statistics: dict[str, Any] = {
        "resamples": rule.resamples,
        "confidence": rule.confidence,
        "seed": rule.seed,
    }
    evaluation = evaluate_predictions(y_true, probabilities, task.labels, groups, **statistics)
    at_point = evaluate_operating_point(
        point, y_true, probabilities, task.labels, groups, **statistics
    )
    scaled = temperature and evaluate_temperature(
        temperature, y_true, probabilities, task.labels, groups, **statistics
    )
    names = order_metrics(evaluation.metrics, task.critical)
    ordered = replace(evaluation, metrics={name: evaluation.metrics[name] for name in names})
    return EngineEvaluation(
        **ordered.field_values(),
        target=target,
        critical=task.critical,
        operating_point=at_point,
        temperature=scaled or None,
        subgroups=evaluate_subgroups(
            attributes or {}, point, y_true, probabilities, task.labels, groups, **statistics
        ),
    )
