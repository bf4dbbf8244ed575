"""Biases take back what rounded weights shift on average, for every kind of layer."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from lesiontk.calibration.bias_correction import (
    Window,
    mean_shift,
    mean_window,
    pad_same,
    round_weights,
)


def convolve(values: NDArray[Any], weights: NDArray[Any], window: Window) -> NDArray[np.float64]:
    """Return the convolution [N, H', W', out] as its definition says it, output by output."""
    top, bottom, left, right = window.padding
    padded = np.pad(values, ((0, 0), (top, bottom), (left, right), (0, 0)))
    groups, outputs, inputs, height, width = weights.shape
    reach = [d * (k - 1) for d, k in zip(window.dilations, window.kernel, strict=True)]
    rows = range(0, padded.shape[1] - reach[0], window.strides[0])
    columns = range(0, padded.shape[2] - reach[1], window.strides[1])
    result = np.zeros((len(values), len(rows), len(columns), groups * outputs))
    for (i, row), (j, column) in itertools.product(enumerate(rows), enumerate(columns)):
        down = slice(row, row + reach[0] + 1, window.dilations[0])
        across = slice(column, column + reach[1] + 1, window.dilations[1])
        seen = padded[:, down, across].reshape(len(values), height, width, groups, inputs)
        result[:, i, j] = np.einsum("nhwgi,goihw->ngo", seen, weights).reshape(len(values), -1)
    return result


@settings(max_examples=40)
@given(
    seed=st.integers(0, 1000),
    groups=st.sampled_from([1, 2, 4]),
    kernel=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    strides=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    dilations=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    padding=st.tuples(*[st.integers(0, 2)] * 4),
)
def test_the_corrected_layer_has_the_mean_of_the_float_layer(
    seed: int,
    groups: int,
    kernel: tuple[int, int],
    strides: tuple[int, int],
    dilations: tuple[int, int],
    padding: tuple[int, int, int, int],
) -> None:
    generator = np.random.default_rng(seed)
    window = Window(kernel, strides, dilations, padding)
    values = generator.uniform(0, 3, (2, 7, 8, 4))  # as behind a ReLU: never below zero
    weights = generator.normal(size=(groups, 3, 4 // groups, *kernel))
    rounded = round_weights(weights, 7)  # so coarse that the shift is plain
    shift = mean_shift(weights, mean_window(values, window), 7)
    expected = convolve(values, weights, window).mean(axis=(0, 1, 2))
    received = convolve(values, rounded, window).mean(axis=(0, 1, 2))
    np.testing.assert_allclose(received - shift, expected, atol=1e-9)
    if seed == 0 and weights[0, 0].size > 1:  # a single weight is the largest, and is kept
        assert np.abs(received - expected).max() > 1e-3  # without it they differ


def test_inputs_without_a_mean_shift_nothing() -> None:
    weights = np.random.default_rng(0).normal(size=(1, 3, 4, 1, 1))
    values = np.array([[[[1.0, -2.0, 3.0, 4.0]]], [[[-1.0, 2.0, -3.0, -4.0]]]])
    np.testing.assert_allclose(mean_shift(weights, mean_window(values, Window()), 127), 0)


@pytest.mark.parametrize(("limit", "steps"), [(127, 255), (64, 129)])
def test_weights_take_the_steps_of_a_symmetric_grid(limit: int, steps: int) -> None:
    weights = np.linspace(-0.3, 0.3, 4001).reshape(1, 1, 4001, 1, 1)
    rounded = round_weights(weights, limit)
    assert len(np.unique(rounded.round(9))) == steps
    assert rounded.max() == pytest.approx(0.3)
    assert np.abs(rounded - weights).max() <= 0.3 / limit / 2 * 1.001


def test_every_output_channel_has_a_scale_of_its_own() -> None:
    weights = np.array([[1.0, 0.26], [0.01, 0.0026]]).reshape(1, 2, 2, 1, 1)
    rounded = round_weights(weights, 4)
    np.testing.assert_allclose(rounded.ravel(), [1.0, 0.25, 0.01, 0.0025])


def test_a_channel_of_zeros_stays_one() -> None:
    assert round_weights(np.zeros((1, 2, 2, 1, 1)), 127).tolist() == [[[[[0.0]], [[0.0]]]] * 2]


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "dilation", "expected"),
    [
        (8, 3, 1, 1, (1, 1)),
        (8, 3, 2, 1, (0, 1)),  # TensorFlow puts the odd pixel behind
        (7, 3, 2, 1, (1, 1)),
        (8, 1, 2, 1, (0, 0)),
        (8, 3, 1, 2, (2, 2)),
        (5, 2, 1, 1, (0, 1)),
    ],
)
def test_same_padding_is_tensorflows(
    size: int, kernel: int, stride: int, dilation: int, expected: tuple[int, int]
) -> None:
    assert pad_same(size, kernel, stride, dilation) == expected
