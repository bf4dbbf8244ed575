"""The search for the widths that are fast enough, with made-up clocks."""

from __future__ import annotations

import pytest

from lesiontk.compress.prune_budget import find_share
from lesiontk.errors import DataError


@pytest.mark.parametrize("wanted", [0.3, 0.5, 0.8])
def test_it_keeps_as_much_as_the_time_allows(wanted: float) -> None:
    """Latency that falls less than operations do: 0.1 + 0.9 of them."""
    share = find_share(lambda macs: 0.1 + 0.9 * macs, wanted)
    assert 0.1 + 0.9 * share <= wanted
    assert share == pytest.approx((wanted - 0.1) / 0.9, abs=0.03)


def test_shares_that_cannot_be_had_count_as_too_small() -> None:
    def measure(macs: float) -> float:
        if macs < 0.45:
            raise DataError("too narrow")
        return macs

    assert 0.45 <= find_share(measure, 0.5) <= 0.5


def test_it_says_so_if_nothing_is_fast_enough() -> None:
    with pytest.raises(DataError, match=r"the best takes 0\.90 of the time.* than 0\.50"):
        find_share(lambda macs: 0.9, 0.5)
