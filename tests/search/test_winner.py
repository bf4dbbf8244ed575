"""The best of many equal candidates is only lucky, and the corrected estimate says so."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from lesiontk.errors import DataError
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
    many = estimate_winner("accuracy", [accuracy(right)] * 50, GROUPS, resamples=2000)
    one = estimate_winner("accuracy", [accuracy(right)], GROUPS, resamples=2000)
    assert many.corrected == one.corrected
    assert abs(one.optimism) < 0.005


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
