"""Acceptance gates: how much an engine may lose against its full-precision parent."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from lesiontk.errors import UsageError
from lesiontk.evaluate.comparison import compare_predictions, compared_metrics
from lesiontk.evaluate.operating_point import OperatingPoint
from lesiontk.recipe import EvaluateRule, GateRule

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class GateResult:
    """One metric of one engine: the drop that was judged, and the bound."""

    engine: str
    metric: str
    drop: float
    judged: float
    max_drop: float
    confidence: float | None
    passed: bool

    def to_json(self) -> dict[str, Any]:
        """Return the fields as plain Python values."""
        return asdict(self)


def judge_engine(
    engine: str,
    y_true: npt.NDArray[np.int64],
    parent: npt.NDArray[np.float32],
    child: npt.NDArray[np.float32],
    labels: Sequence[str],
    groups: Sequence[str],
    gate: Mapping[str, GateRule],
    statistics: EvaluateRule,
    points: tuple[OperatingPoint, OperatingPoint] | None = None,
) -> tuple[GateResult, ...]:
    """Return the result of each rule; probabilities float32 [N, C] of the same images.

    `points` are the parent's and the child's, which a gate on sensitivity or specificity needs.
    With a confidence c the lower one-sided bound of the drop is judged, which is the upper end of
    the two-sided interval of the difference at level ``2 c - 1``.
    """
    results = []
    for metric, rule in gate.items():
        level = 2 * rule.confidence - 1 if rule.confidence else statistics.confidence
        difference = compare_predictions(
            y_true,
            parent,
            child,
            labels,
            groups,
            resamples=statistics.resamples,
            confidence=level,
            seed=statistics.seed,
            points=points,
        ).differences.get(metric)
        if difference is None:
            raise UsageError(
                f"gate names the metric {metric!r}; expected one of "
                f"{', '.join(compared_metrics(labels))}."
            )
        if difference.value is None:
            logger.warning(
                "%s: %s cannot be judged, for no test image has the class", engine, metric
            )
            continue
        drop = -difference.value
        judged = drop if rule.confidence is None or difference.high is None else -difference.high
        results.append(
            GateResult(
                engine,
                metric,
                drop,
                judged,
                rule.max_drop,
                rule.confidence,
                judged <= rule.max_drop,
            )
        )
    return tuple(results)
