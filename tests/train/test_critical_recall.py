"""The least shift that keeps a recall, and a model that is left with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lesiontk.frameworks import import_keras
from lesiontk.train.critical_recall import find_shift, has_bias, raise_bias, shift_probabilities

RNG = np.random.default_rng(0)


def draw(n: int = 200, classes: int = 4) -> tuple[Any, Any]:
    logits = RNG.normal(size=(n, classes))
    odds = np.exp(logits)
    return RNG.integers(0, classes, n), (odds / odds.sum(axis=1, keepdims=True)).astype(np.float32)


def recall(targets: Any, probabilities: Any, label: int) -> float:
    return float((probabilities[targets == label].argmax(axis=1) == label).mean())


@pytest.mark.parametrize("wanted", [0.3, 0.5, 0.77, 1.0])
def test_the_shift_is_the_least_that_keeps_the_recall(wanted: float) -> None:
    targets, said = draw()
    shift = find_shift(targets, said, 2, wanted)
    assert shift > 0
    assert recall(targets, shift_probabilities(said, 2, shift), 2) >= wanted
    found = int((targets == 2).sum()) * recall(targets, shift_probabilities(said, 2, shift), 2)
    assert found == pytest.approx(np.ceil(wanted * (targets == 2).sum()))
    assert recall(targets, shift_probabilities(said, 2, shift - 0.01), 2) < wanted


def test_a_recall_that_is_kept_needs_none() -> None:
    targets, said = draw()
    assert find_shift(targets, said, 1, recall(targets, said, 1)) == 0
    assert find_shift(targets, said, 1, 0.0) == 0


def test_without_an_image_of_the_class_nothing_is_shifted() -> None:
    targets, said = draw()
    assert find_shift(np.zeros_like(targets), said, 1, 0.9) == 0


def test_probabilities_stay_probabilities_in_their_odds() -> None:
    _, said = draw()
    shifted = shift_probabilities(said, 0, 0.7)
    np.testing.assert_allclose(shifted.sum(axis=1), 1, rtol=1e-6)
    odds = (shifted[:, 0] / shifted[:, 1]) / (said[:, 0] / said[:, 1])
    np.testing.assert_allclose(odds, np.exp(0.7), rtol=1e-4)
    np.testing.assert_allclose(shifted[:, 3] / shifted[:, 1], said[:, 3] / said[:, 1], rtol=1e-4)


@pytest.mark.parametrize("apart", [True, False])
def test_a_raised_bias_is_that_shift(apart: bool, tmp_path: Path) -> None:
    keras = import_keras()
    image = keras.Input((6,))
    tensor = keras.layers.Dense(5, activation="relu")(image)
    if apart:
        tensor = keras.layers.Dense(4, name="logits")(tensor)
        tensor = keras.layers.Softmax()(tensor)
    else:
        tensor = keras.layers.Dense(4, activation="softmax")(tensor)
    model = keras.Model(image, tensor)
    pixels = RNG.normal(size=(9, 6)).astype(np.float32)
    expected = shift_probabilities(np.asarray(model(pixels)), 3, 1.2)
    assert has_bias(model)
    raise_bias(model, 3, 1.2)
    np.testing.assert_allclose(np.asarray(model(pixels)), expected, rtol=1e-4)


def test_a_last_layer_without_bias_is_noticed() -> None:
    keras = import_keras()
    image = keras.Input((6,))
    assert not has_bias(keras.Model(image, keras.layers.Dense(4, use_bias=False)(image)))
