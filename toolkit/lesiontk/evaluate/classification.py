"""The built-in metrics of classification; `compute_metrics` defines them."""

from __future__ import annotations

import math

import numpy as np

from lesiontk.evaluate.metrics import FloatArray, WeightedScores, divide, mean_of_defined
from lesiontk.recipe.metric import Metric


def _recall(scores: WeightedScores) -> FloatArray:
    return divide(scores.right, scores.right + scores.missed)


def _f1(scores: WeightedScores) -> FloatArray:
    right, missed, intruded = scores.right, scores.missed, scores.intruded
    return np.where(right + missed > 0, divide(2 * right, 2 * right + missed + intruded), np.nan)


def _macro_auc(scores: WeightedScores) -> FloatArray:
    return scores.auc[:, -1] if scores.auc.shape[1] == 2 else mean_of_defined(scores.auc)


def _accuracy(scores: WeightedScores) -> FloatArray:
    right: FloatArray = scores.right.sum(axis=1)
    return divide(right, right + scores.missed.sum(axis=1))


ACCURACY = Metric("accuracy", _accuracy, compared=True)
BALANCED_ACCURACY = Metric(
    "balanced_accuracy", lambda s: mean_of_defined(_recall(s)), compared=True
)
MACRO_AUC = Metric("macro_auc", _macro_auc, compared=True, ranks=True)
MACRO_F1 = Metric("macro_f1", lambda s: mean_of_defined(_f1(s)))
RECALL = Metric("recall", _recall, per_label=True, compared=True)
PRECISION = Metric("precision", lambda s: divide(s.right, s.right + s.intruded), per_label=True)
F1 = Metric("f1", _f1, per_label=True)
SPECIFICITY = Metric(
    "specificity", lambda s: divide(s.rejected, s.rejected + s.intruded), per_label=True
)
AUC = Metric("auc", lambda s: s.auc, per_label=True, ranks=True)
EXPECTED_CALIBRATION_ERROR = Metric(
    "expected_calibration_error",
    lambda s: np.abs(s.bin_gaps).sum(axis=1) / s.total,
    lower_is_better=True,
    grows_by_chance=True,
)
BRIER = Metric(
    "brier",
    lambda s: s.squared / s.total,
    lower_is_better=True,
    cost_of_nothing=lambda classes: 1 - 1 / classes,
)
LOG_LOSS = Metric(
    "log_loss", lambda s: s.logarithmic / s.total, lower_is_better=True, cost_of_nothing=math.log
)
