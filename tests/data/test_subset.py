"""A drawn subset has whole lesions, balanced over the classes where there are enough."""

from __future__ import annotations

import numpy as np

from lesiontk.data.subset import draw_lesions

LABELS = ["nv"] * 60 + ["mel"] * 20 + ["df"] * 4
GROUPS = [f"lesion {number // 2}" for number in range(84)]


def test_classes_take_turns_and_lesions_stay_whole() -> None:
    places = draw_lesions(LABELS, GROUPS, 30, seed=0)
    drawn = [LABELS[place] for place in places]
    assert drawn.count("df") == 4
    assert 12 <= drawn.count("nv") <= 14
    assert 12 <= drawn.count("mel") <= 14
    chosen = {GROUPS[place] for place in places}
    assert sum(group in chosen for group in GROUPS) == len(places)
    assert 30 <= len(places) <= 31


def test_the_seed_chooses_and_nothing_else() -> None:
    first, again = (draw_lesions(LABELS, GROUPS, 30, seed=1) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert first.tolist() != draw_lesions(LABELS, GROUPS, 30, seed=2).tolist()
    assert first.tolist() == sorted(first.tolist())


def test_all_images_are_drawn_where_there_are_no_more() -> None:
    np.testing.assert_array_equal(draw_lesions(LABELS, GROUPS, 500, seed=0), np.arange(84))
