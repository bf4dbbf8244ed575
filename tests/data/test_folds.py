"""Folds: every image is tested once, and no lesion is in two subsets of any fold."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from lesiontk.data.split import SplitItem, check_leakage, group_images, split_fold
from lesiontk.errors import DataError, UsageError
from lesiontk.recipe import SplitRule, override_recipe, read_recipe
from lesiontk.records import SUBSETS
from lesiontk.stages.split import SplitConfig

VALIDATION = 0.15


def make_items(lesions: Mapping[str, Sequence[int]]) -> list[SplitItem]:
    """Label -> number of images of each of its lesions; every image has pixels of its own."""
    return [
        SplitItem(f"{label}_{lesion}_{n}", f"{label}_{lesion}", label, f"{label} {lesion} {n}")
        for label, sizes in lesions.items()
        for lesion, size in enumerate(sizes)
        for n in range(size)
    ]


def deal(items: Sequence[SplitItem], folds: int, seed: int = 7) -> list[dict[str, str]]:
    groups = group_images(items)
    return [
        split_fold(items, groups, folds=folds, fold=fold, validation=VALIDATION, seed=seed)
        for fold in range(1, folds + 1)
    ]


data_sets = st.dictionaries(
    st.sampled_from(["bkl", "mel", "nv", "vasc"]),
    st.lists(st.integers(1, 4), min_size=6, max_size=30),
    min_size=1,
).map(make_items)


@settings(max_examples=40)
@given(items=data_sets, folds=st.integers(2, 6), seed=st.integers(0, 2**32))
def test_every_image_is_tested_once_and_no_lesion_is_divided(
    items: list[SplitItem], folds: int, seed: int
) -> None:
    try:
        dealt = deal(items, folds, seed)
    except DataError as error:
        assume("has no image in the subset validation" not in str(error))
        raise
    tested = Counter(image for subsets in dealt for image, s in subsets.items() if s == "test")
    assert tested == Counter(item.image_id for item in items)
    for subsets in dealt:
        check_leakage(items, subsets)
        labels = {(item.label, subsets[item.image_id]) for item in items}
        assert labels == {(item.label, subset) for item in items for subset in SUBSETS}


def test_a_lesion_of_two_folds_would_be_found() -> None:
    """The twin: the same check finds a lesion that was moved."""
    items = make_items({"mel": [2] * 12, "nv": [3] * 12})
    (subsets, *_) = deal(items, 3)
    moved = next(item for item in items if subsets[item.image_id] == "test")
    with pytest.raises(DataError, match="share their lesion"):
        check_leakage(items, {**subsets, moved.image_id: "train"})


def test_folds_are_even_and_depend_on_the_seed() -> None:
    """The shares of rare and common classes even out, also over many diagnoses."""
    items = make_items({"mel": [1, 2] * 31, "nv": [1, 1, 3] * 71, "df": [2] * 11, "vasc": [1] * 9})
    dealt = deal(items, 5)
    sizes = [Counter(subsets.values()) for subsets in dealt]
    tested = [size["test"] for size in sizes]
    assert max(tested) - min(tested) <= 4
    assert all(abs(size["validation"] / len(items) - VALIDATION) < 0.02 for size in sizes)
    for label in ("mel", "nv", "df"):
        mine = [item.image_id for item in items if item.label == label]
        counts = [sum(subsets[image] == "test" for image in mine) for subsets in dealt]
        assert max(counts) - min(counts) <= 3
    assert deal(items[::-1], 5) == dealt
    assert deal(items, 5, seed=8) != dealt


def test_too_few_lesions_are_told_with_the_number_of_folds() -> None:
    items = make_items({"mel": [3] * 4, "nv": [1] * 30})
    with pytest.raises(DataError, match=r"'mel' has 4 lesions; cross-validation in 5 folds needs"):
        deal(items, 5)
    assert len(deal(items, 4)) == 4
    items = make_items({"mel": [1] * 3, "nv": [1] * 30})
    with pytest.raises(DataError, match=r"in 2 folds needs at least 4"):
        deal(items, 2)


@pytest.mark.parametrize(
    ("key", "reason"),
    [
        ("data.split.folds=1", "folds is 1; expected 2 or more"),
        ("data.split.folds=-3", "folds"),
        ("data.split.fold=2", "fold is 2; expected at most folds, 0"),
        ('data.split={"folds": 3, "leaky": true}', "expected folds 0 with leaky"),
    ],
)
def test_folds_that_mean_nothing_are_refused(key: str, reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        override_recipe(read_recipe("demo"), [key])


def test_the_key_of_a_split_without_folds_is_as_before() -> None:
    """Workspaces that were made before there were folds stay valid."""
    rule = SplitConfig(task="seven_class", rule=SplitRule()).key_document()["rule"]
    assert not {"folds", "fold"} & set(rule)
    folded = SplitConfig(task="seven_class", rule=SplitRule(folds=3, fold=1)).key_document()["rule"]
    assert (folded["folds"], folded["fold"]) == (3, 1)
