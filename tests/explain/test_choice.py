"""Missed images of the critical class first, then other errors, then what was nearly wrong."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lesiontk.explain.choice import REASONS, choose_images

BKL, MEL, NV = 0, 1, 2
TRUTH = np.array([NV, MEL, NV, MEL, BKL, MEL, NV])
PROBABILITIES = np.array(
    [
        (0.1, 0.2, 0.7),  # right, surer than row 6
        (0.1, 0.3, 0.6),  # melanoma missed
        (0.95, 0.03, 0.02),  # wrong, the surest of all
        (0.8, 0.1, 0.1),  # melanoma missed, surer than row 1
        (0.2, 0.5, 0.3),  # wrong
        (0.05, 0.9, 0.05),  # melanoma recognized
        (0.4, 0.15, 0.45),  # right, hardly
    ],
    np.float32,
)


def choose(count: int, critical: int = MEL) -> list[tuple[int, str, int, int]]:
    chosen = choose_images(TRUTH, PROBABILITIES, critical, count)
    return [(c.row, c.reason, c.predicted, c.rival) for c in chosen]


def test_missed_critical_images_come_first_and_the_most_confident_before_the_others() -> None:
    assert choose(9) == [
        (3, "critical_missed", BKL, MEL),
        (1, "critical_missed", NV, MEL),
        (2, "wrong", BKL, NV),
        (4, "wrong", MEL, BKL),
        (6, "unsure", NV, BKL),
        (0, "unsure", NV, MEL),
        (5, "unsure", MEL, BKL),
    ]


def test_another_critical_class_changes_the_order() -> None:
    assert [row for row, *_ in choose(4, critical=BKL)] == [4, 2, 3, 1]


@pytest.mark.parametrize("count", [0, 1, 3])
def test_no_more_than_wanted_are_chosen_and_the_first_stay_the_same(count: int) -> None:
    assert choose(count) == choose(9)[:count]


def test_of_equal_confidence_the_earlier_row_comes_first() -> None:
    truth, probabilities = np.array([0, 1, 0]), np.full((3, 2), 0.5, np.float32)
    chosen = choose_images(truth, probabilities, 1, 3)
    assert [(c.row, c.reason, c.predicted, c.rival) for c in chosen] == [
        (1, "critical_missed", 0, 1),
        (0, "unsure", 0, 1),
        (2, "unsure", 0, 1),
    ]


@given(st.integers(1, 30), st.integers(2, 5), st.integers(0, 40), st.integers(0, 9))
def test_no_error_is_left_out_for_an_image_that_is_right(
    images: int, classes: int, count: int, seed: int
) -> None:
    generator = np.random.default_rng(seed)
    truth = generator.integers(0, classes, images)
    probabilities = generator.dirichlet(np.ones(classes), images).astype(np.float32)
    chosen = choose_images(truth, probabilities, 0, count)
    wrong = int((probabilities.argmax(axis=1) != truth).sum())
    assert len(chosen) == len({c.row for c in chosen}) == min(count, images)
    assert sum(c.reason != "unsure" for c in chosen) == min(count, wrong)
    places = [REASONS.index(c.reason) for c in chosen]
    assert places == sorted(places)
    assert all(c.predicted != c.rival for c in chosen)
    assert all((c.rival == truth[c.row]) == (c.reason != "unsure") for c in chosen)
