"""What a metric says of itself, and which there are: gates name them, evaluations compute them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from lesiontk.registry import Registry


@dataclass(frozen=True, slots=True)
class Metric:
    """A figure of classification.

    `compute` maps a `lesiontk.evaluate.metrics.WeightedScores` of B weightings to float64 [B], or
    [B, C] with `per_label`, NaN where the images leave it undefined. `compared` says that an
    engine's difference to its parent is estimated. `grows_by_chance` is a figure that chance
    makes larger, in a resample once more. `cost_of_nothing` maps C to what a lesion loses whose C
    probabilities become equal; it is None for a metric that lies in 0 to 1 and so loses 1 at most.
    """

    name: str
    compute: Callable[[Any], Any]
    per_label: bool = False
    lower_is_better: bool = False
    compared: bool = False
    grows_by_chance: bool = False
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
