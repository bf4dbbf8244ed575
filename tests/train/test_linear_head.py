"""The linear head: the best strength by validation, and what its weights stand for."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from lesiontk.train.linear_head import STRENGTHS, LinearHead, fit_linear_head


def draw(
    count: int, classes: int, seed: int, width: int = 8
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return features whose first columns carry the class, on other scales and offsets."""
    generator = np.random.default_rng(seed)
    targets = generator.integers(0, classes, count)
    features = generator.normal(size=(count, width))
    features[:, :classes] += 3 * np.eye(classes)[targets]
    return (features * np.linspace(0.1, 50, width) + 7).astype(np.float32), targets


def fit(classes: int, views: int = 1) -> tuple[LinearHead, NDArray[np.float32], NDArray[np.int64]]:
    features, targets = draw(300, classes, 0)
    validation, wanted = draw(200, classes, 1)
    labels = tuple(f"class{number}" for number in range(classes))
    steps: list[int] = []
    stacked = np.stack([features] * views)
    head = fit_linear_head(stacked, targets, validation, wanted, labels, steps.append)
    assert len(steps) == len(STRENGTHS)
    return head, validation, wanted


@pytest.mark.parametrize("classes", [2, 3, 7])
def test_it_tells_the_classes_apart(classes: int) -> None:
    head, validation, wanted = fit(classes)
    probabilities = head.predict(validation)
    assert probabilities.shape == (200, classes)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-5)
    assert (probabilities.argmax(axis=1) == wanted).mean() > 0.85


def test_the_best_of_all_strengths_is_taken() -> None:
    head, _, _ = fit(3)
    assert [row["strength"] for row in head.scores] == list(STRENGTHS)
    best = max(row["balanced_accuracy"] for row in head.scores)
    first = next(row for row in head.scores if row["balanced_accuracy"] == best)
    assert head.strength == first["strength"]
    assert len({row["balanced_accuracy"] for row in head.scores}) > 1


def test_equal_views_change_nothing_but_the_weight_of_the_penalty() -> None:
    once, validation, _ = fit(3)
    thrice, _, _ = fit(3, views=3)
    agree = once.predict(validation).argmax(1) == thrice.predict(validation).argmax(1)
    assert agree.mean() > 0.95
