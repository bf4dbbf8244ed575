"""Scales that leave a stored bias room, and what is cut off without them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lesiontk.calibration.bias_range import (
    LARGEST_BIAS,
    choose_scales,
    find_saturated,
    least_scales,
    store_layer,
)

INPUT_SCALE = 0.02


def random_layer(seed: int, spread: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Weights int8 [8, 5], their scales over `spread` decades, and a bias."""
    generator = np.random.default_rng(seed)
    weights = generator.integers(-127, 128, (8, 5)).astype(np.int8)
    scales = (10.0 ** -generator.uniform(0, spread, 8)).astype(np.float32)
    return weights, scales, generator.normal(0, 1, 8)


@given(st.integers(0, 1000), st.floats(0.0, 14.0))
def test_every_bias_is_stored_within_half_of_int32_and_within_a_step(
    seed: int, spread: float
) -> None:
    weights, scales, bias = random_layer(seed, spread)
    chosen = choose_scales(weights, scales, least_scales(bias, INPUT_SCALE, 8))
    stored = store_layer(weights, scales, chosen, bias, INPUT_SCALE)
    assert np.abs(stored.bias).max() <= LARGEST_BIAS
    steps = INPUT_SCALE * stored.scales.astype(np.float64)
    assert (np.abs(stored.bias * steps - bias) <= 0.51 * steps).all()


@given(st.integers(0, 1000), st.floats(0.0, 14.0))
def test_weights_move_by_less_than_their_new_step_and_others_not_at_all(
    seed: int, spread: float
) -> None:
    weights, scales, bias = random_layer(seed, spread)
    least = least_scales(bias, INPUT_SCALE, 8)
    stored = store_layer(weights, scales, choose_scales(weights, scales, least), bias, INPUT_SCALE)
    kept = scales >= least
    np.testing.assert_array_equal(stored.weights[kept], weights[kept])
    np.testing.assert_array_equal(stored.scales[kept], scales[kept])
    assert (stored.scales >= scales).all()
    before = weights * scales.astype(np.float64)[:, np.newaxis]
    after = stored.weights * stored.scales.astype(np.float64)[:, np.newaxis]
    assert (np.abs(after - before) <= 0.51 * stored.scales[:, np.newaxis]).all()


def test_one_scale_for_all_channels_follows_the_bias_that_needs_most() -> None:
    bias = np.array([0.0, -3.0, 1.0])
    assert least_scales(bias, INPUT_SCALE, 1) == pytest.approx([3.0 / (INPUT_SCALE * 2**30)])
    assert least_scales(np.zeros(0), INPUT_SCALE, 1) == [0.0]


def test_channels_without_weights_take_the_scale_that_their_bias_is_finest_in() -> None:
    weights = np.zeros((3, 4), np.int8)
    weights[1] = 5
    scales = np.ones(3, np.float32)
    bias = np.array([0.1561, 0.1561, 0.0])
    least = least_scales(bias, INPUT_SCALE, 3)
    chosen = choose_scales(weights, scales, least)
    assert list(chosen[1:]) == [1.0, 1.0]
    stored = store_layer(weights, scales, chosen, bias, INPUT_SCALE)
    real = stored.bias * INPUT_SCALE * chosen.astype(np.float64)
    assert real[0] == pytest.approx(0.1561, rel=1e-8)
    np.testing.assert_array_equal(stored.weights, weights)
    np.testing.assert_array_equal(choose_scales(weights, chosen, least), chosen)


def test_a_bias_at_an_end_of_int32_was_cut_off_and_one_within_was_not() -> None:
    bias = np.array([2**31 - 1, -(2**31), 2**31 - 2**8, 2**30, 0, -(2**31) + 2**20])
    assert find_saturated(bias) == [0, 1, 2]
    assert find_saturated(np.array([2**31 - 1, 5], np.int64)) == [0]
