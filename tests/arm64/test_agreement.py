"""Answers of two processors are the same up to a step of the logits; a label only at a tie."""

from __future__ import annotations

import pytest

from tests.arm64.agreement import ROUNDED, explain_difference, probability_limit

STEP = 0.0941
"""Of the published ResNet152V2's logits."""


def test_a_tie_may_be_decided_otherwise() -> None:
    limit = probability_limit("onnx", STEP)
    here, there = [0.4851, 0.4851, 0.0298], [0.4616, 0.5072, 0.0312]
    assert explain_difference(here, there, limit) is None
    assert explain_difference(there, here, limit) is None


def test_a_label_that_was_clear_may_not_change() -> None:
    limit = probability_limit("onnx", STEP)
    found = explain_difference([0.53, 0.46, 0.01], [0.485, 0.505, 0.01], limit)
    assert found is not None
    assert found.startswith("another label, 0.0700 ahead")


def test_a_probability_that_is_further_away_is_named() -> None:
    limit = probability_limit("onnx", STEP)
    found = explain_difference([0.9, 0.1], [0.84, 0.16], limit)
    assert found == f"a probability differs by 0.0600; expected at most {limit:.4f}"


def test_tflite_has_no_room_but_for_printed_digits() -> None:
    assert probability_limit("tflite", STEP) == ROUNDED
    assert explain_difference([0.9, 0.1], [0.8997, 0.1003], ROUNDED) is not None
    assert explain_difference([0.9, 0.1], [0.9, 0.1], ROUNDED) is None


@pytest.mark.parametrize("steps", [1.0, 0.5])
def test_the_limit_holds_whatever_the_probabilities(steps: float) -> None:
    import numpy as np

    generator = np.random.default_rng(1)
    logits = generator.normal(0, 2, (2000, 7))
    moved = logits + steps * STEP * generator.choice((-1, 1), logits.shape)
    first, second = (np.exp(v) / np.exp(v).sum(axis=1, keepdims=True) for v in (logits, moved))
    assert np.abs(first - second).max() <= probability_limit("onnx", STEP)
