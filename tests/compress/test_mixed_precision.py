"""The search for the fewest layers that stay in higher precision."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import pytest

from lesiontk.compress.mixed_precision import find_fewest

RANKED = tuple(f"layer{number}" for number in range(50))


class Counted:
    """Meets the condition if all `needed` are kept; counts the trials."""

    def __init__(self, needed: Collection[str]) -> None:
        self.needed = frozenset(needed)
        self.trials = 0

    def __call__(self, kept: frozenset[str]) -> bool:
        self.trials += 1
        return self.needed <= kept


def test_nothing_is_kept_where_nothing_is_needed() -> None:
    meets = Counted(())
    assert find_fewest(RANKED, meets) == frozenset()
    assert meets.trials == 1


@pytest.mark.parametrize("count", [1, 2, 3, 7, 8, 9, 49, 50])
def test_the_most_sensitive_are_found_whatever_their_number(count: int) -> None:
    meets = Counted(RANKED[:count])
    assert find_fewest(RANKED, meets) == frozenset(RANKED[:count])
    assert meets.trials <= 2 * np.log2(len(RANKED)) + count + 2


def test_what_ranks_high_and_is_not_needed_is_left_out_again() -> None:
    needed = {"layer2", "layer11"}
    assert find_fewest(RANKED, Counted(needed)) == frozenset(needed)


def test_it_says_so_if_not_even_all_are_enough() -> None:
    with pytest.raises(ValueError, match="not even all"):
        find_fewest(RANKED, Counted(["another"]))
