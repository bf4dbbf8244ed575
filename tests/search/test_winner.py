"""The best of many equal candidates is only lucky, and the corrected estimate says so."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from lesiontk.errors import DataError
from lesiontk.evaluate.metrics import FloatArray, MetricScorer
from lesiontk.search.winner import Scoring, WinnerEstimate, estimate_winner

LESIONS, TRUE = 150, 0.7
GROUPS = [f"l{number}" for number in range(LESIONS)]


def accuracy(right: NDArray[np.bool_]) -> Scoring:
    """Return a candidate that is right on these images."""
    return lambda weights: weights @ right / weights.sum(axis=1)


def search(rng: np.random.Generator, candidates: int, better: float = 0.0) -> WinnerEstimate:
    """Return the estimate of the best of candidates of one true accuracy; the first is better."""
    right = rng.uniform(size=(candidates, LESIONS)) < TRUE
    right[0] |= rng.uniform(size=LESIONS) < better / (1 - TRUE)
    return estimate_winner("accuracy", list(map(accuracy, right)), GROUPS, resamples=200)


def test_the_estimate_of_the_luckiest_of_equals_is_corrected() -> None:
    rng = np.random.default_rng(0)
    found = [search(rng, candidates=30) for _ in range(40)]
    measured = np.mean([each.measured for each in found])
    corrected = np.mean([each.corrected for each in found])
    assert measured > TRUE + 0.06
    assert corrected == pytest.approx(TRUE, abs=0.015)
    assert np.mean([each.optimism for each in found]) == pytest.approx(measured - corrected)


def test_a_clear_winner_is_hardly_corrected() -> None:
    found = search(np.random.default_rng(0), candidates=10, better=0.28)
    assert found.chosen_again == 1
    assert abs(found.optimism) < 0.01


def test_equal_engines_are_no_choice() -> None:
    """Candidates that predict the same are one candidate, however many they are."""
    right = np.random.default_rng(0).uniform(size=LESIONS) < TRUE
    for count in (1, 50):
        found = estimate_winner("accuracy", [accuracy(right)] * count, GROUPS, resamples=200)
        assert found.corrected == pytest.approx(found.measured)


def test_a_mean_over_classes_is_not_corrected_where_nothing_was_chosen() -> None:
    """Outside of a resample, a class of two lesions is often absent."""
    rng = np.random.default_rng(0)
    truth = np.array([0] * 148 + [1, 1])
    probabilities = rng.dirichlet((1, 1), size=LESIONS)
    scorer = MetricScorer(truth, probabilities, ("nv", "mel"))

    def balanced(weights: FloatArray) -> FloatArray:
        return scorer.compute(weights, ["balanced_accuracy"])["balanced_accuracy"]

    one = estimate_winner("balanced_accuracy", [balanced], GROUPS, resamples=200)
    assert one.optimism == pytest.approx(0)


def test_lower_is_better() -> None:
    rng = np.random.default_rng(0)
    losses = rng.exponential(size=(20, LESIONS))
    found = estimate_winner(
        "log_loss", [lambda w, loss=loss: w @ loss / w.sum(axis=1) for loss in losses],
        GROUPS, lower_is_better=True, resamples=200,
    )  # fmt: skip
    assert found.measured == pytest.approx(losses.mean(axis=1).min())
    assert found.corrected > found.measured
    assert found.optimism > 0.05


def test_without_candidates_there_is_no_winner() -> None:
    with pytest.raises(DataError, match="no candidate"):
        estimate_winner("accuracy", [], GROUPS)
    with pytest.raises(DataError, match="undefined for all candidates"):
        estimate_winner("accuracy", [lambda w: np.full(len(w), np.nan)], GROUPS)
    with pytest.raises(DataError, match="more validation lesions"):
        estimate_winner("accuracy", [accuracy(np.array([True]))], ["l0"])
