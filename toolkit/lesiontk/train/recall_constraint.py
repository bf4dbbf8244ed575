"""Recall constraint: the bias of the last layer is raised until each class keeps its recall.

A smaller network with the same average score may have a lower recall of melanoma, or of a rare
class. Networks are compared and returned at the recalls of their parent.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

NO_BIAS = "the model's last layer has no bias, which the recall constraint needs"

Probabilities = NDArray[np.float32]
Targets = NDArray[np.int64]
Shifts = NDArray[np.float64]
"""The bias added to each class's logit, [C]."""


def fit_logit_bias(
    targets: Targets,
    probabilities: Probabilities,
    labels: Sequence[str],
    critical: str,
    recalls: Mapping[str, float],
) -> Shifts:
    """Return the logit bias [C] that keeps these recalls for `probabilities` [n, C], `targets` [n].

    The recall of the critical class is always restored, by the smallest sufficient bias. The others
    follow, the largest loss first, each only if balanced accuracy rises and the critical recall
    stays. Classes that are not in `recalls` are not constrained.
    """
    logits = np.log(np.maximum(probabilities.astype(np.float64), 1e-30))
    required = np.array([recalls.get(label, 0.0) for label in labels])
    first = labels.index(critical)
    shifts = _raise_to(targets, logits, np.zeros(len(labels)), first, required)
    short = measure_recalls(targets, logits + shifts) - required
    for label in np.argsort(short):
        if label != first and short[label] < 0:
            tried = _raise_to(targets, logits, shifts, label, required)
            tried = _raise_to(targets, logits, tried, first, required)
            if _balance(targets, logits + tried) > _balance(targets, logits + shifts):
                shifts = tried
    return shifts


def _raise_to(
    targets: Targets, logits: Shifts, shifts: Shifts, label: int, required: NDArray[np.float64]
) -> Shifts:
    """Return the shifts with one class raised by the least that restores the required recall."""
    own_margin = (logits + shifts)[targets == label]
    if not len(own_margin):
        return shifts
    margins = np.sort(np.delete(own_margin, label, axis=1).max(axis=1) - own_margin[:, label])
    needed = math.ceil(required[label] * len(margins) - 1e-9)
    raised = shifts.copy()
    if needed and margins[needed - 1] >= 0:
        raised[label] += margins[needed - 1] + 1e-3
    return raised


def measure_recalls(targets: Targets, scores: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """Return the recall of each class, [C], of scores [n, C]; NaN for a class without images."""
    right = scores.argmax(axis=1) == targets
    kinds = [targets == label for label in range(scores.shape[1])]
    return np.array([right[kind].mean() if kind.any() else math.nan for kind in kinds])


def _balance(targets: Targets, scores: Shifts) -> float:
    return float(np.nanmean(measure_recalls(targets, scores)))


def shift_probabilities(probabilities: Probabilities, shifts: Shifts) -> Probabilities:
    """Return the probabilities [n, C] with the logits shifted."""
    raised = probabilities.astype(np.float64) * np.exp(shifts)
    return np.asarray(raised / raised.sum(axis=1, keepdims=True), np.float32)


def has_bias(model: Any) -> bool:
    """Return whether the last weights of a trainable model are a bias over its classes."""
    return tuple(model.trainable_variables[-1].shape) == (model.output_shape[-1],)


def raise_biases(model: Any, shifts: Shifts) -> None:
    """Add the shifts to the bias of the last layer of a model that `has_bias`."""
    model.trainable_variables[-1].assign_add(np.asarray(shifts, np.float32))
