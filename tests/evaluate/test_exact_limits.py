"""Limits are those of published formulas, and cover what a bootstrap cannot see."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar

from lesiontk.evaluate.exact_limits import (
    bound_unseen_mean,
    bound_unseen_rate,
    limit_paired_difference,
    limit_share,
)

Z = float(scipy.stats.norm.isf(0.025))


def test_twelve_melanomas_without_a_loss_leave_room_for_22_percent() -> None:
    assert bound_unseen_rate(12, 0.05) == pytest.approx(0.2209, abs=5e-5)
    assert (1 - bound_unseen_rate(12, 0.05)) ** 12 == pytest.approx(0.05)


def test_nothing_seen_in_nothing_bounds_nothing() -> None:
    assert bound_unseen_rate(0, 0.05) == 1.0
    assert bound_unseen_mean([], 0.05) == 1.0
    assert bound_unseen_mean([12, 0], 0.05) == 1.0


@given(st.integers(1, 500), st.floats(0.001, 0.2))
def test_the_mean_of_one_rate_is_that_rate(lesions: int, tail: float) -> None:
    assert bound_unseen_mean([lesions], tail) == pytest.approx(bound_unseen_rate(lesions, tail))


def test_the_mean_of_equal_kinds_is_that_of_them_all_together() -> None:
    assert bound_unseen_mean([12] * 7, 0.025) == pytest.approx(bound_unseen_rate(84, 0.025))


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(1, 60), min_size=2, max_size=3), st.integers(0, 2**32 - 1))
def test_no_rates_that_are_likely_to_stay_unseen_have_a_higher_mean(
    lesions: list[int], seed: int
) -> None:
    """The twin: rates drawn on the constraint itself never exceed the bound, and reach it."""
    shares = np.random.default_rng(seed).dirichlet(np.full(len(lesions), 0.3), size=2000)
    shares = np.vstack([shares, np.eye(len(lesions))])
    rates = 1 - 0.05 ** (shares / np.array(lesions))
    bound = bound_unseen_mean(lesions, 0.05)
    assert rates.mean(axis=1).max() <= bound + 1e-9
    assert bound <= rates.mean(axis=1).max() + 0.02


@given(st.integers(0, 40), st.integers(1, 40))
def test_a_share_has_the_exact_binomial_limits(hits: int, more: int) -> None:
    lesions = hits + more
    expected = scipy.stats.binomtest(hits, lesions).proportion_ci(0.95, method="exact")
    received = limit_share(hits / lesions, lesions, 0.025)
    assert received == pytest.approx((expected.low, expected.high), abs=1e-9)
    assert received[0] < received[1]


def score(lost: int, gained: int, lesions: int, delta: float) -> float:
    """The score statistic of a paired difference, its nuisance rate found by brute force."""
    rest = lesions - lost - gained

    def surprise(rate: float) -> float:  # `rate` is that of losses; gains have `rate + delta`
        parts = ((lost, rate), (gained, rate + delta), (rest, 1 - 2 * rate - delta))
        return -sum(n * math.log(max(p, 1e-300)) for n, p in parts if n)

    ends = (max(0.0, -delta), (1 - delta) / 2)
    found = minimize_scalar(surprise, bounds=ends, method="bounded", options={"xatol": 1e-12})
    variance = lesions * (2 * found.x + delta - delta * delta)
    return float((gained - lost - lesions * delta) / math.sqrt(variance))


@pytest.mark.parametrize(("lost", "gained", "lesions"), [(1, 0, 12), (2, 1, 100), (0, 3, 30)])
def test_a_paired_difference_has_the_limits_of_the_score_test(
    lost: int, gained: int, lesions: int
) -> None:
    low, high = limit_paired_difference(lost, gained, lesions, 0.025)
    assert score(lost, gained, lesions, low) == pytest.approx(Z, abs=1e-3)
    assert score(lost, gained, lesions, high) == pytest.approx(-Z, abs=1e-3)


@settings(deadline=None)
@given(st.integers(0, 6), st.integers(0, 6), st.integers(0, 90), st.floats(0.005, 0.2))
def test_a_paired_difference_lies_within_its_limits_which_mirror_each_other(
    lost: int, gained: int, rest: int, tail: float
) -> None:
    lesions = max(1, lost + gained + rest)
    low, high = limit_paired_difference(lost, gained, lesions, tail)
    assert -1 <= low < high <= 1
    assert low <= (gained - lost) / lesions <= high
    assert limit_paired_difference(gained, lost, lesions, tail) == pytest.approx((-high, -low))


def test_two_engines_that_agree_on_all_may_still_differ_by_the_exact_bound() -> None:
    low, high = limit_paired_difference(0, 0, 12, 0.05)
    assert (low, high) == pytest.approx((-0.2209, 0.2209), abs=5e-5)
