"""Keeping the recall of the critical class: one bias of the last layer is raised until it is kept.

A smaller network that is as good on average may trade melanomas for naevi. Networks are compared,
and left, at the recall that the network before them had.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

Probabilities = NDArray[np.float32]


def find_shift(
    targets: NDArray[np.int64], probabilities: Probabilities, critical: int, recall: float
) -> float:
    """Return the least that the critical class's logit must rise for `recall`; 0 if none.

    `probabilities` are [n, C], `critical` is the column; images of other classes do not count.
    """
    logits = np.log(np.maximum(probabilities[targets == critical].astype(np.float64), 1e-30))
    if not len(logits):
        return 0.0
    others = np.delete(logits, critical, axis=1).max(axis=1)
    margins = np.sort(others - logits[:, critical])
    wanted = math.ceil(recall * len(margins) - 1e-9)
    if wanted == 0 or margins[wanted - 1] < 0:
        return 0.0
    return float(margins[wanted - 1]) + 1e-3


def shift_probabilities(probabilities: Probabilities, critical: int, shift: float) -> Probabilities:
    """Return what the model says with the critical class's logit raised by `shift`, [n, C]."""
    raised = probabilities.astype(np.float64)
    raised[:, critical] *= math.exp(shift)
    return np.asarray(raised / raised.sum(axis=1, keepdims=True), np.float32)


def has_bias(model: Any) -> bool:
    """Whether the last weights of a trainable model are a bias of its classes."""
    return tuple(model.trainable_variables[-1].shape) == (model.output_shape[-1],)


def raise_bias(model: Any, critical: int, shift: float) -> None:
    """Raise the critical class's bias in the last layer of a model that `has_bias`."""
    bias = model.trainable_variables[-1]
    bias.assign_add(shift * np.eye(bias.shape[0], dtype=np.float32)[critical])
