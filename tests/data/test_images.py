"""Rows of one side are found, and draws from it take every class as evenly as it reaches."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lesiontk.data.images import ImageSet, open_images
from lesiontk.errors import DataError
from lesiontk.store import Store
from tests.fake_stages import TextConfig, TextStage
from tests.image_sets import make_image_set, make_rows

IMAGES = make_image_set(
    [
        *make_rows("train", {"bkl": 9, "mel": 9, "nv": 9}),
        *make_rows("validation", {"bkl": 20, "mel": 4, "nv": 50}),
    ]
)


def count_labels(images: ImageSet, rows: np.ndarray) -> dict[str, int]:
    return dict(Counter(images.labels[images.targets[row]] for row in rows))


def test_the_rows_of_a_side() -> None:
    assert list(IMAGES.indices("train")) == list(range(27))
    assert list(IMAGES.indices("validation")) == list(range(27, 27 + 74))


def test_a_side_without_images_is_an_error() -> None:
    with pytest.raises(DataError, match="the test subset of the split has no images"):
        IMAGES.indices("test")


def test_a_draw_is_even_as_far_as_each_class_reaches() -> None:
    assert count_labels(IMAGES, IMAGES.draw_stratified("validation", 12, 0)) == {
        "bkl": 4,
        "mel": 4,
        "nv": 4,
    }
    assert count_labels(IMAGES, IMAGES.draw_stratified("validation", 54, 0)) == {
        "bkl": 20,
        "mel": 4,
        "nv": 30,
    }


@settings(max_examples=40)
@given(
    lesions=st.fixed_dictionaries({name: st.integers(0, 12) for name in ("bkl", "mel", "nv")}),
    count=st.integers(1, 50),
    seed=st.integers(0, 2**32),
)
def test_a_draw_takes_each_row_once_and_no_more_than_there_are(
    lesions: dict[str, int], count: int, seed: int
) -> None:
    images = make_image_set(
        [*make_rows("train", {"nv": 5}), *make_rows("test", {**lesions, "mel": 1})]
    )
    rows = images.draw_stratified("test", count, seed)
    subset = images.indices("test")
    assert len(rows) == len(set(rows)) == min(count, len(subset))
    assert set(rows) <= set(subset)
    assert list(rows) == sorted(rows)
    assert np.array_equal(rows, images.draw_stratified("test", count, seed))


def test_the_seed_decides_which() -> None:
    one, two = (IMAGES.draw_stratified("validation", 30, seed) for seed in (1, 2))
    assert not np.array_equal(one, two)


def test_an_artefact_of_another_kind_holds_no_images(store: Store) -> None:
    text = store.build(TextStage(), TextConfig(), {})
    with pytest.raises(DataError, match=r"has no file 'images\.csv'"):
        open_images(text)
