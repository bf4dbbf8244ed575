"""A linear classifier on frozen features, with the regularization that validation prefers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from lesiontk.evaluate.metrics import compute_metrics

STRENGTHS: Final = tuple(float(f"1e{power}") for power in range(-5, 1))
"""Inverse strengths of the L2 penalty that are tried, scikit-learn's ``C``."""


@dataclass(frozen=True, slots=True)
class LinearHead:
    """softmax(features @ `weights` [D, C] + `bias` [C]); `scores` has a row for each strength."""

    weights: NDArray[np.float32]
    bias: NDArray[np.float32]
    strength: float
    scores: tuple[dict[str, float], ...]

    def predict(self, features: NDArray[np.floating]) -> NDArray[np.float32]:
        """Return probabilities, float32 [N, C]."""
        logits = features.astype(np.float64) @ self.weights + self.bias
        return np.asarray(softmax(logits, axis=1), np.float32)


def fit_linear_head(
    features: NDArray[np.floating],
    targets: NDArray[np.int64],
    validation: NDArray[np.floating],
    validation_targets: NDArray[np.int64],
    labels: tuple[str, ...],
    advance: Callable[[int], None],
) -> LinearHead:
    """Return the head with the highest validation balanced accuracy; ties go to the stronger
    penalty.

    `features` [V, n, D] are V views of n images with `targets` [n], `validation` [m, D]. Features
    are standardized by their training mean and deviation, which the head's weights contain.
    Classes have equal total weight. `advance(1)` is called for each strength.
    """
    from sklearn.linear_model import LogisticRegression

    views, _, width = features.shape
    flat = features.reshape(-1, width).astype(np.float32)
    mean = flat.mean(axis=0, dtype=np.float64)
    deviation = flat.std(axis=0, dtype=np.float64) + 1e-6
    flat = ((flat - mean) / deviation).astype(np.float32)
    repeated = np.tile(targets, views)
    heads: list[LinearHead] = []
    scores: list[dict[str, float]] = []
    for strength in STRENGTHS:
        model = LogisticRegression(C=strength, class_weight="balanced", max_iter=300, tol=1e-3)
        model.fit(flat, repeated)
        coefficients, intercepts = model.coef_, model.intercept_
        if len(labels) == 2:  # scikit-learn keeps one logit of two
            coefficients = np.vstack([-coefficients / 2, coefficients / 2])
            intercepts = np.concatenate([-intercepts / 2, intercepts / 2])
        weights = (coefficients / deviation).T
        head = LinearHead(
            weights.astype(np.float32),
            (intercepts - mean @ weights).astype(np.float32),
            strength,
            (),
        )
        values = compute_metrics(validation_targets, head.predict(validation), labels)
        names = ("balanced_accuracy", "accuracy", "macro_auc", "log_loss")
        row = {"strength": strength, **{name: float(values[name][0]) for name in names}}
        heads.append(head)
        scores.append(row)
        advance(1)
    best = int(np.argmax([row["balanced_accuracy"] for row in scores]))
    return replace(heads[best], scores=tuple(scores))
