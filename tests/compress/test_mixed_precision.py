"""The search for the fewest layers that stay in higher precision."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import pytest

from lesiontk.compress.mixed_precision import SearchResult, find_fewest

RANKED = tuple(f"layer{number}" for number in range(50))
AMPLE = 1000


class Counted:
    """Meets the condition if all `needed` are kept; keeps what was tried."""

    def __init__(self, needed: Collection[str]) -> None:
        self.needed = frozenset(needed)
        self.tried: list[frozenset[str]] = []

    def __call__(self, kept: frozenset[str]) -> bool:
        self.tried.append(kept)
        return self.needed <= kept


def test_nothing_is_kept_where_nothing_is_needed() -> None:
    meets = Counted(())
    assert find_fewest(RANKED, meets, AMPLE) == SearchResult(frozenset())
    assert meets.tried == [frozenset()]


@pytest.mark.parametrize("count", [1, 2, 3, 7, 8, 9, 49, 50])
def test_the_most_sensitive_are_found_whatever_their_number(count: int) -> None:
    meets = Counted(RANKED[:count])
    assert find_fewest(RANKED, meets, AMPLE) == SearchResult(frozenset(RANKED[:count]))
    assert len(meets.tried) <= 2 * np.log2(len(RANKED)) + count + 2


def test_what_ranks_high_and_is_not_needed_is_left_out_again() -> None:
    needed = {"layer2", "layer11"}
    assert find_fewest(RANKED, Counted(needed), AMPLE) == SearchResult(frozenset(needed))


def test_it_says_so_if_not_even_all_are_enough() -> None:
    meets = Counted(["another"])
    assert find_fewest(RANKED, meets, AMPLE) == SearchResult(None)
    assert meets.tried[-1] == frozenset(RANKED)


@pytest.mark.parametrize("budget", range(1, 40))
def test_with_any_budget_the_fewest_that_were_enough_are_kept(budget: int) -> None:
    meets, whole = Counted({"layer2", "layer11"}), Counted({"layer2", "layer11"})
    find_fewest(RANKED, whole, AMPLE)
    found = find_fewest(RANKED, meets, budget)
    assert meets.tried == whole.tried[:budget]
    assert len(set(meets.tried)) == len(meets.tried)  # none is paid for twice
    enough = [kept for kept in meets.tried if meets.needed <= kept]
    assert found.kept == min(enough, key=len, default=None)
    assert found.untried == (whole.tried[budget] if budget < len(whole.tried) else None)
