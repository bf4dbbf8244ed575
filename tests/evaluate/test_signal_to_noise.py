"""Each layer's signal-to-noise ratio, and which layers are worst."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from lesiontk.calibration.ranges import TensorReader
from lesiontk.evaluate.signal_to_noise import HIGHEST, measure_signal, ratio_in_decibels

IMAGES = [np.full((1, 2, 2, 3), value, np.uint8) for value in (10, 20, 30)]


def reader(**scales: float) -> TensorReader:
    """Return a reader of tensors that are the image times a scale."""

    def read(image: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
        return {name: image.astype(np.float32) * scale for name, scale in scales.items()}

    return read


def test_a_tenth_of_the_amplitude_is_twenty_decibels() -> None:
    report = measure_signal(reader(conv=1.0, dense=2.0), reader(conv=1.1, dense=2.0), IMAGES)
    assert report.n == 3
    assert [layer.tensor for layer in report.layers] == ["conv", "dense"]
    assert report.layers[0].decibels == pytest.approx(20, abs=1e-4)
    assert report.layers[1].decibels == HIGHEST


def test_the_worst_layers_come_first() -> None:
    parent = reader(a=1.0, b=1.0, c=1.0)
    report = measure_signal(parent, reader(a=1.01, b=1.5, c=1.1), IMAGES)
    assert [layer.tensor for layer in report.worst(2)] == ["b", "c"]
    summary = report.summarize(2)
    assert summary.layers == 3
    assert [layer.tensor for layer in summary.worst] == ["b", "c"]
    assert summary.median_decibels == pytest.approx(20, abs=1e-4)


def test_what_one_of_the_two_lacks_is_left_out() -> None:
    report = measure_signal(reader(a=1.0, merged=1.0), reader(a=1.0, cast=1.0), IMAGES)
    assert [layer.tensor for layer in report.layers] == ["a"]


def test_another_layout_is_left_out() -> None:
    def turned(image: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
        return {"a": image.astype(np.float32)[:, :1]}

    assert measure_signal(reader(a=1.0), turned, IMAGES).layers == ()


@given(st.floats(1e-30, 1e30), st.floats(1e-30, 1e30))
def test_decibels_stay_within_their_bounds(signal: float, noise: float) -> None:
    assert -HIGHEST <= ratio_in_decibels(signal, noise) <= HIGHEST


def test_silence_has_no_signal_and_equality_no_noise() -> None:
    assert ratio_in_decibels(0.0, 1.0) == -HIGHEST
    assert ratio_in_decibels(0.0, 0.0) == ratio_in_decibels(1.0, 0.0) == HIGHEST
    assert ratio_in_decibels(100.0, 1.0) == 20.0
