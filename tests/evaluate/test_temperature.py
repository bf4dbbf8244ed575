"""A temperature fitted on validation: known cases, and what it must not change."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lesiontk.errors import DataError
from lesiontk.evaluate.metrics import MetricScorer
from lesiontk.evaluate.temperature import (
    LOWEST,
    apply_temperature,
    evaluate_temperature,
    fit_temperature,
)

LABELS = ("mel", "nv", "bkl")


def make_honest(seed: int, images: int = 4000) -> tuple[np.ndarray, np.ndarray]:
    """Return truth [N] drawn from the very probabilities [N, 3], which therefore are calibrated."""
    generator = np.random.default_rng(seed)
    logits = 2 * generator.normal(size=(images, 3))
    powers = np.exp(logits)
    probabilities = powers / powers.sum(axis=1, keepdims=True)
    draws = generator.random(images)[:, None] > probabilities.cumsum(axis=1)
    return draws.sum(axis=1).clip(max=2), probabilities


def test_calibrated_probabilities_keep_their_temperature() -> None:
    truth, probabilities = make_honest(0)
    assert fit_temperature(truth, probabilities) == pytest.approx(1, abs=0.06)


@pytest.mark.parametrize("heated", [0.4, 0.7, 2.5])
def test_the_fit_takes_back_what_made_them_too_sure_or_too_modest(heated: float) -> None:
    truth, probabilities = make_honest(1)
    shifted = apply_temperature(probabilities, heated)
    assert fit_temperature(truth, shifted) == pytest.approx(1 / heated, rel=0.06)
    before = MetricScorer(truth, shifted, LABELS).compute()["expected_calibration_error"][0]
    groups = [str(i) for i in range(len(truth))]
    after = evaluate_temperature(1 / heated, truth, shifted, LABELS, groups, resamples=50)
    assert after.expected_calibration_error.value is not None
    assert after.expected_calibration_error.value < 0.5 * before


@given(st.integers(0, 100), st.floats(0.1, 10))
def test_a_temperature_changes_no_decision(seed: int, temperature: float) -> None:
    _, probabilities = make_honest(seed, 20)
    scaled = apply_temperature(probabilities, temperature)
    np.testing.assert_allclose(scaled.sum(axis=1), 1)
    np.testing.assert_array_equal(scaled.argmax(axis=1), probabilities.argmax(axis=1))


def test_temperature_one_changes_nothing_else() -> None:
    truth, probabilities = make_honest(2, 200)
    groups = [str(i // 2) for i in range(200)]
    judged = evaluate_temperature(1.0, truth, probabilities, LABELS, groups, resamples=50)
    whole = MetricScorer(truth, probabilities, LABELS).compute()["expected_calibration_error"][0]
    assert judged.expected_calibration_error.value == pytest.approx(whole, abs=1e-6)


def test_answers_that_are_always_right_are_not_made_infinitely_sure() -> None:
    truth = np.array([0, 1, 2] * 10)
    assert fit_temperature(truth, 0.7 * np.eye(3)[truth] + 0.1) >= LOWEST


def test_probabilities_that_are_none_are_refused() -> None:
    with pytest.raises(DataError, match="not logits"):
        fit_temperature(np.array([0]), np.array([[3.0, 1.0]]))


def test_calibration_alone_is_what_the_whole_computation_gives() -> None:
    truth, probabilities = make_honest(3, 100)
    scorer = MetricScorer(truth, probabilities, LABELS)
    weights = np.random.default_rng(0).integers(0, 3, size=(4, 100)).astype(float)
    whole = scorer.compute(weights)
    for name, values in scorer.compute(
        weights, ("expected_calibration_error", "brier", "log_loss")
    ).items():
        np.testing.assert_allclose(values, whole[name])
