"""Exact bounds: known values, coverage by enumeration, and what they must never do."""

from __future__ import annotations

from math import comb

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lesiontk.evaluate.exact_bounds import (
    OneSided,
    PairedShare,
    bound_loss,
    bound_mean,
    bound_share,
    bound_unseen,
    count_effective,
    pair_shares,
)


def test_twelve_melanomas_none_of_them_lost_leave_room_for_a_loss_of_22_percent() -> None:
    assert bound_loss(PairedShare(12, 0, 0), 0.95).high == pytest.approx(1 - 0.05 ** (1 / 12))
    assert bound_unseen(12, 0.95) == pytest.approx(0.2209, abs=1e-4)
    assert bound_unseen(99, 0.95) == pytest.approx(0.0298, abs=1e-4)


def test_a_share_has_the_bounds_of_clopper_and_pearson() -> None:
    """5 of 20 at 95 % two-sided: 0.0866 to 0.4910 (tabulated)."""
    found = bound_share(0.25, 20, 0.975)
    assert found.low == pytest.approx(0.0866, abs=1e-4)
    assert found.high == pytest.approx(0.4910, abs=1e-4)


@pytest.mark.parametrize("share", [0.01, 0.05, 0.2, 0.5])
@pytest.mark.parametrize("n", [12, 60])
def test_the_upper_bound_covers_at_least_as_often_as_it_says(share: float, n: int) -> None:
    chance = [comb(n, k) * share**k * (1 - share) ** (n - k) for k in range(n + 1)]
    covered = sum(p for k, p in enumerate(chance) if bound_share(k / n, n, 0.95).high >= share)
    assert covered >= 0.95
    narrow = sum(p for k, p in enumerate(chance) if k / n >= share)
    assert narrow < 0.95  # the twin: a bound of width 0 does not


@given(st.integers(1, 400), st.floats(0, 1), st.floats(0, 1), st.floats(0.55, 0.999))
def test_the_bounds_hold_the_loss_and_widen_with_confidence(
    n: int, lost: float, share: float, confidence: float
) -> None:
    paired = PairedShare(n, lost, share * (1 - lost))
    loss = bound_loss(paired, confidence)
    assert -1 <= loss.low <= loss.value <= loss.high <= 1
    surer = bound_loss(paired, (1 + confidence) / 2)
    assert surer.high >= loss.high - 1e-12
    assert bound_loss(paired.scale(4), confidence).high <= loss.high + 1e-9


def test_the_mean_of_parts_is_narrower_than_its_parts() -> None:
    part = OneSided(0.1, 0.0, 0.3)
    mean = bound_mean([part] * 4)
    assert (mean.value, mean.low, mean.high) == (
        pytest.approx(0.1),
        pytest.approx(0.05),
        pytest.approx(0.2),
    )
    assert bound_mean([part]).high == pytest.approx(0.3)


def test_lesions_with_many_images_count_for_less_than_their_images() -> None:
    assert count_effective(np.array([0, 1, 2, 3])) == 4
    assert count_effective(np.array([0, 0, 0, 1])) == pytest.approx(1.6)
    assert count_effective(np.array([0, 0, 1, 1])) == 2


def test_what_is_lost_and_gained_is_counted_among_the_images_that_matter() -> None:
    before = np.array([True, True, False, True])
    after = np.array([False, True, True, False])
    among = np.array([True, True, True, False])
    paired = pair_shares(before, after, among, np.arange(4))
    assert (paired.n, paired.lost, paired.gained) == (3, pytest.approx(1 / 3), pytest.approx(1 / 3))
