"""The interface of a metric, and the registry of metrics for gates and evaluations."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from lesiontk.registry import Registry


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric of classification.

    `compute` maps a `lesiontk.evaluate.metrics.WeightedScores` of B weightings to float64 [B], or
    [B, C] with `per_label`, NaN where it is undefined. With `compared` an engine's difference to
    its parent is estimated. `grows_by_chance` marks a metric that is biased upward, in a resample
    again. `ranks` marks a metric that compares the scores of different images, which scores of
    several networks do not permit. `cost_of_nothing` maps C to the loss of a lesion whose C
    probabilities become equal; it is None for a metric in 0 to 1, whose loss is at most 1.
    """

    name: str
    compute: Callable[[Any], Any]
    per_label: bool = False
    lower_is_better: bool = False
    compared: bool = False
    grows_by_chance: bool = False
    ranks: bool = False
    cost_of_nothing: Callable[[int], float] | None = None


METRICS: Registry[Metric] = Registry("metric")
for _name in (
    "accuracy",
    "balanced_accuracy",
    "macro_auc",
    "macro_f1",
    "recall",
    "precision",
    "f1",
    "specificity",
    "auc",
    "expected_calibration_error",
    "brier",
    "log_loss",
):
    METRICS.register(_name, f"lesiontk.evaluate.classification:{_name.upper()}")


def list_plain() -> tuple[str, ...]:
    """Return the metrics of all classes together, in order of registration."""
    return tuple(name for name, metric in METRICS.items() if not metric.per_label)


def list_per_label() -> tuple[str, ...]:
    """Return the metrics of a single class, in order of registration."""
    return tuple(name for name, metric in METRICS.items() if metric.per_label)
