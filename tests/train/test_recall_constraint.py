"""The shifts that keep recalls, and a model that is left with them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lesiontk.system.frameworks import import_keras
from lesiontk.train.recall_constraint import (
    fit_logit_bias,
    has_bias,
    measure_recalls,
    raise_biases,
    shift_probabilities,
)

RNG = np.random.default_rng(0)
LABELS = ("a", "b", "c", "d")


def draw(n: int = 200) -> tuple[Any, Any]:
    logits = RNG.normal(size=(n, len(LABELS)))
    odds = np.exp(logits)
    targets = RNG.integers(0, len(LABELS), n)
    return targets, (odds / odds.sum(axis=1, keepdims=True)).astype(np.float32)


@pytest.mark.parametrize("wanted", [0.3, 0.5, 0.77, 1.0])
def test_the_critical_recall_is_kept_by_the_least_shift_that_does(wanted: float) -> None:
    targets, said = draw()
    shifts = fit_logit_bias(targets, said, LABELS, "c", {"c": wanted})
    assert shifts[2] > 0
    assert not shifts[[0, 1, 3]].any()
    recall = measure_recalls(targets, shift_probabilities(said, shifts))[2]
    images = (targets == 2).sum()
    assert recall * images == pytest.approx(np.ceil(wanted * images))
    less = shifts - [0, 0, 0.01, 0]
    assert measure_recalls(targets, shift_probabilities(said, less))[2] < wanted


def test_recalls_that_are_kept_need_no_shift() -> None:
    targets, said = draw()
    recalls = dict(zip(LABELS, measure_recalls(targets, said), strict=True))
    assert not fit_logit_bias(targets, said, LABELS, "b", recalls).any()
    assert not fit_logit_bias(targets, said, LABELS, "b", {}).any()


def test_without_an_image_of_the_class_nothing_is_shifted() -> None:
    targets, said = draw()
    assert not fit_logit_bias(np.zeros_like(targets), said, LABELS, "b", {"b": 0.9}).any()


def test_a_class_that_was_given_away_comes_back() -> None:
    """What a network answers, with one rare class's logit lowered: the shift undoes it."""
    targets = np.repeat(np.arange(4), [100, 60, 60, 20])
    logits = RNG.normal(size=(240, 4)) + 2.0 * np.eye(4)[targets]
    odds = np.exp(logits)
    before = (odds / odds.sum(axis=1, keepdims=True)).astype(np.float32)
    recalls = dict(zip(LABELS, measure_recalls(targets, before), strict=True))
    after = shift_probabilities(before, np.array([0, 0, 0, -2.0]))
    shifts = fit_logit_bias(targets, after, LABELS, "b", recalls)
    kept = measure_recalls(targets, shift_probabilities(after, shifts))
    assert measure_recalls(targets, after)[3] < recalls["d"] <= kept[3]
    assert kept[1] >= recalls["b"]
    assert kept.mean() > measure_recalls(targets, after).mean()


def test_no_other_class_is_raised_at_the_cost_of_balance_or_of_the_critical_one() -> None:
    for _ in range(20):
        targets, said = draw()
        alone = fit_logit_bias(targets, said, LABELS, "c", {"c": 0.5})
        all_of_them = fit_logit_bias(targets, said, LABELS, "c", dict.fromkeys(LABELS, 0.5))
        before, after = (
            measure_recalls(targets, shift_probabilities(said, shifts))
            for shifts in (alone, all_of_them)
        )
        assert after[2] >= 0.5
        assert after.mean() >= before.mean()


def test_probabilities_stay_probabilities_in_their_odds() -> None:
    _, said = draw()
    shifted = shift_probabilities(said, np.array([0.7, 0, 0, 0]))
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
    shifts = np.array([0, 0.3, 0, 1.2])
    expected = shift_probabilities(np.asarray(model(pixels)), shifts)
    assert has_bias(model)
    raise_biases(model, shifts)
    np.testing.assert_allclose(np.asarray(model(pixels)), expected, rtol=1e-4)


def test_a_last_layer_without_bias_is_noticed() -> None:
    keras = import_keras()
    image = keras.Input((6,))
    assert not has_bias(keras.Model(image, keras.layers.Dense(4, use_bias=False)(image)))
