"""Lesions are dealt whole, every class to every side, and an edited split is caught."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from lesiontk.data.split import (
    SplitItem,
    check_leakage,
    count_leaks,
    group_images,
    hash_split,
    split_by_group,
)
from lesiontk.errors import DataError, LeakageError
from lesiontk.records import SUBSETS

TEST, VALIDATION = 0.2, 0.1
SHARES = {"train": 1 - TEST - VALIDATION, "validation": VALIDATION, "test": TEST}


def make_items(lesions: Mapping[str, Iterable[int]]) -> list[SplitItem]:
    """Label -> number of images of each of its lesions; every image has pixels of its own."""
    items = []
    for label, sizes in lesions.items():
        for lesion, size in enumerate(sizes):
            for _ in range(size):
                name = f"IMG_{len(items):04d}"
                items.append(SplitItem(name, f"{label}_{lesion}", label, f"pixels of {name}"))
    return items


def deal(items: Sequence[SplitItem], seed: int = 7) -> dict[str, str]:
    return deal_by(items, group_images(items), seed)


def deal_by(items: Sequence[SplitItem], groups: Mapping[str, str], seed: int = 7) -> dict[str, str]:
    return split_by_group(items, groups, test=TEST, validation=VALIDATION, seed=seed)


def sides_by(
    items: Sequence[SplitItem], subsets: Mapping[str, str], key: str
) -> dict[Any, set[str]]:
    """What shares a value of `key` -> the sides on which it stands."""
    found: dict[Any, set[str]] = defaultdict(set)
    for item in items:
        if getattr(item, key):
            found[getattr(item, key)].add(subsets[item.image_id])
    return found


def shares_are_met(items: Sequence[SplitItem], subsets: Mapping[str, str]) -> bool:
    """Whether every side holds its share of every class, as near as whole groups allow.

    Each group goes to the side with the greatest deficit, which is positive; so no side ends more
    than its largest group above its share, and none more than two below.
    """
    groups = group_images(items)
    largest = max(Counter(groups.values()).values())
    for label in {item.label for item in items}:
        mine = [item.image_id for item in items if item.label == label]
        for subset, share in SHARES.items():
            excess = sum(subsets[image] == subset for image in mine) - share * len(mine)
            if not -2 * largest - 1e-9 <= excess <= largest + 1e-9:
                return False
    return True


data_sets = st.dictionaries(
    st.sampled_from(["bkl", "mel", "nv", "vasc"]),
    st.lists(st.integers(1, 4), min_size=3, max_size=25),
    min_size=1,
).map(make_items)


@st.composite
def tangled_data_sets(draw: st.DrawFn) -> list[SplitItem]:
    """Lesions without an id, and pixels that several images share, across lesions and classes."""
    items = draw(data_sets)
    change = st.sampled_from(["none", "none", "none", "no lesion", "pixels of another"])
    tangled = []
    for item in items:
        match draw(change):
            case "no lesion":
                item = replace(item, lesion_id=None)
            case "pixels of another":
                item = replace(item, pixels=draw(st.sampled_from(items)).pixels)
        tangled.append(item)
    return tangled


# ------------------------------------------------------------------------------ properties


@settings(max_examples=60)
@given(items=tangled_data_sets(), seed=st.integers(0, 2**32))
def test_no_lesion_and_no_pixels_stand_on_two_sides(items: list[SplitItem], seed: int) -> None:
    try:
        subsets = deal(items, seed)
    except DataError as error:
        assume("lesions; a split needs at least 3" not in str(error))
        assume("has no image in the subset" not in str(error))
        raise
    assert set(subsets) == {item.image_id for item in items}
    for key in ("lesion_id", "pixels"):
        assert all(len(found) == 1 for found in sides_by(items, subsets, key).values())


@settings(max_examples=60)
@given(items=data_sets, seed=st.integers(0, 2**32))
def test_every_class_stands_on_every_side_with_its_share(items: list[SplitItem], seed: int) -> None:
    subsets = deal(items, seed)
    assert all(found == set(SUBSETS) for found in sides_by(items, subsets, "label").values())
    assert shares_are_met(items, subsets)


@settings(max_examples=40)
@given(items=tangled_data_sets(), data=st.data())
def test_the_split_depends_on_the_seed_alone_and_not_on_the_order(
    items: list[SplitItem], data: st.DataObject
) -> None:
    try:
        subsets = deal(items)
    except DataError:
        assume(False)
    assert deal(data.draw(st.permutations(items))) == subsets


@settings(max_examples=40)
@given(items=tangled_data_sets())
def test_groups_are_the_smallest_that_keep_lesions_and_pixels_whole(
    items: list[SplitItem],
) -> None:
    """Compared with labels that spread until nothing changes."""
    group = {item.image_id: item.image_id for item in items}
    changed = True
    while changed:
        changed = False
        for a in items:
            for b in items:
                shared = (a.lesion_id and a.lesion_id == b.lesion_id) or a.pixels == b.pixels
                if shared and group[b.image_id] > group[a.image_id]:
                    group[b.image_id], changed = group[a.image_id], True
    assert group_images(items) == group


# ------------------------------------------------------------------------------ examples


BIG = make_items({"mel": [1, 2] * 50, "nv": [1] * 200})


def test_shares_are_met_within_one_percent_on_many_lesions() -> None:
    subsets = deal(BIG)
    for subset, share in SHARES.items():
        count = sum(s == subset for s in subsets.values())
        assert abs(Fraction(count, len(BIG)) - share) < 0.01


def test_shares_that_are_not_met_are_noticed() -> None:
    """The twin of the tests above: a split with an emptied side fails their check."""
    subsets = deal(BIG)
    assert shares_are_met(BIG, subsets)
    assert not shares_are_met(BIG, dict.fromkeys(subsets, "train"))
    moved = {
        image: "test" if subset == "validation" else subset for image, subset in subsets.items()
    }
    assert not shares_are_met(BIG, moved)


def test_another_seed_is_another_split() -> None:
    assert deal(BIG, seed=7) == deal(BIG, seed=7)
    assert deal(BIG, seed=7) != deal(BIG, seed=8)


def test_a_new_class_leaves_the_others_where_they_were() -> None:
    subsets = deal(BIG)
    more = [SplitItem(f"NEW_{n}", f"df_{n}", "df", f"pixels of NEW_{n}") for n in range(9)]
    assert deal([*BIG, *more]).items() >= subsets.items()


@pytest.mark.parametrize("lesions", [1, 2])
def test_a_class_with_fewer_than_three_lesions_is_refused(lesions: int) -> None:
    items = make_items({"nv": [1] * 9, "vasc": [4] * lesions})
    with pytest.raises(DataError, match=f"class 'vasc' has {lesions} lesions; .* at least 3"):
        deal(items)
    assert deal(make_items({"nv": [1] * 9, "vasc": [4] * 3}))


def test_an_image_without_lesion_is_a_lesion_of_its_own() -> None:
    items = [replace(item, lesion_id=None) for item in make_items({"nv": [3, 3, 3]})]
    assert len(set(group_images(items).values())) == 9
    assert set(deal(items).values()) == set(SUBSETS)


def test_identical_pixels_of_two_lesions_make_one_group() -> None:
    items = make_items({"nv": [1, 2, 1, 1]})
    items[3] = replace(items[3], pixels=items[0].pixels)
    groups = group_images(items)
    assert groups["IMG_0000"] == groups["IMG_0003"] == "IMG_0000"
    assert groups["IMG_0001"] == groups["IMG_0002"] == "IMG_0001"
    assert groups["IMG_0004"] == "IMG_0004"


# ------------------------------------------------------------------------------ leakage


def test_a_split_as_dealt_passes() -> None:
    check_leakage(BIG, deal(BIG))


def test_a_lesion_that_was_cut_is_caught() -> None:
    subsets = deal(BIG)
    first, second = (item for item in BIG if item.lesion_id == "mel_1")
    subsets[first.image_id], subsets[second.image_id] = "train", "test"
    with pytest.raises(LeakageError) as caught:
        check_leakage(BIG, subsets)
    assert "1 image(s) share their lesion with another subset" in str(caught.value)
    assert f"mel_1 ({first.image_id} in train, {second.image_id} in test)" in str(caught.value)


def test_pixels_on_two_sides_are_caught() -> None:
    """The lesion ids are in order, the pictures are not."""
    subsets = deal(BIG)
    trained = next(item for item in BIG if subsets[item.image_id] == "train")
    items = [
        replace(item, pixels=trained.pixels)
        if item.lesion_id == next(i.lesion_id for i in BIG if subsets[i.image_id] == "test")
        else item
        for item in BIG
    ]
    with pytest.raises(LeakageError, match="share their pixels with another subset"):
        check_leakage(items, subsets)
    with pytest.raises(LeakageError, match="share their pixels with another subset"):
        check_leakage((item for item in items), subsets)


def test_images_without_lesion_do_not_leak_into_each_other() -> None:
    items = [replace(item, lesion_id=None) for item in make_items({"nv": [1, 1]})]
    check_leakage(items, {"IMG_0000": "train", "IMG_0001": "test"})


# ------------------------------------------------------------------------------ hash


def test_the_hash_follows_every_image_label_and_side() -> None:
    subsets = {"a": "train", "b": "validation", "c": "test"}
    labels = {"a": "nv", "b": "nv", "c": "mel"}
    hashes = {hash_split(subsets, labels)}
    for image in subsets:
        hashes.add(hash_split(subsets, {**labels, image: "bkl"}))
        for subset in set(SUBSETS) - {subsets[image]}:
            hashes.add(hash_split({**subsets, image: subset}, labels))
    hashes.add(hash_split({**subsets, "d": "train"}, {**labels, "d": "nv"}))
    hashes.add(hash_split({"a": "train", "b": "validation"}, labels))
    assert len(hashes) == 1 + 3 + 6 + 2


def test_the_hash_does_not_depend_on_the_order() -> None:
    subsets, labels = deal(BIG), {item.image_id: item.label for item in BIG}
    assert hash_split(dict(reversed(subsets.items())), labels) == hash_split(subsets, labels)
    assert len(hash_split(subsets, labels)) == 64


# ----------------------------------------------------------------- tasks, leaks


@settings(max_examples=40)
@given(items=data_sets, seed=st.integers(0, 5))
def test_a_task_that_sums_diagnoses_up_has_the_same_sides(
    items: list[SplitItem], seed: int
) -> None:
    summed = [replace(item, diagnosis=item.label, label="any") for item in items]
    assert deal(summed, seed) == deal(items, seed)


def test_a_rare_diagnosis_joins_others_of_its_label() -> None:
    items = [
        replace(item, diagnosis=item.label, label="malignant" if item.label != "nv" else "benign")
        for item in make_items({"nv": [1] * 20, "mel": [1] * 20, "scc": [2], "mcc": [1]})
    ]
    subsets = deal(items)
    for label in ("benign", "malignant"):
        assert {subsets[i.image_id] for i in items if i.label == label} == set(SUBSETS)


def test_rare_diagnoses_together_reach_every_side() -> None:
    items = [
        replace(item, diagnosis=item.label, label="rare" if item.label != "nv" else "nv")
        for item in make_items({"nv": [1] * 20, "a": [1], "b": [1, 1], "c": [1]})
    ]
    subsets = deal(items)
    assert {subsets[i.image_id] for i in items if i.label == "rare"} == set(SUBSETS)


def test_a_leaky_split_cuts_lesions_and_an_honest_one_none() -> None:
    items = make_items({"nv": [4] * 30, "mel": [3] * 20})
    honest = deal(items)
    leaky = deal_by(items, {item.image_id: item.image_id for item in items})
    assert count_leaks(items, honest) == 0
    assert count_leaks(items, leaky) > 20
    with pytest.raises(LeakageError):
        check_leakage(items, leaky)


# ----------------------------------------------------------------- patients


def make_patients(patients: int, images: int, melanomas: int) -> list[SplitItem]:
    """Patients with naevi; the first `melanomas` have a melanoma among them."""
    return [
        SplitItem(
            f"IMG_{patient:03d}_{image}",
            None,
            "mel" if image == 0 and patient < melanomas else "nv",
            f"pixels of {patient} {image}",
            patient_id=f"P{patient}",
        )
        for patient in range(patients)
        for image in range(images)
    ]


@pytest.mark.parametrize("seed", range(8))
def test_patients_with_a_rare_diagnosis_are_dealt_by_it(seed: int) -> None:
    """Each is one of many naevi, too; by the commonest diagnosis chance would deal melanomas."""
    items = make_patients(patients=60, images=5, melanomas=10)
    subsets = deal(items, seed)
    found = Counter(subsets[item.image_id] for item in items if item.label == "mel")
    assert found == {"train": 7, "validation": 1, "test": 2}
    assert all(len(where) == 1 for where in sides_by(items, subsets, "patient_id").values())


def test_a_patient_on_two_sides_is_caught() -> None:
    items = make_patients(patients=30, images=2, melanomas=5)
    subsets = deal(items)
    check_leakage(items, subsets)
    subsets[items[0].image_id] = next(s for s in SUBSETS if s != subsets[items[1].image_id])
    with pytest.raises(LeakageError, match="share their patient with another subset"):
        check_leakage(items, subsets)


def test_a_class_that_comes_only_with_rarer_ones_is_missed_on_no_side() -> None:
    items = [
        SplitItem(f"{patient}{image}", None, label, f"{patient}{image}", patient_id=patient)
        for patient in "ABC"
        for image, label in enumerate(["mel", "nv", "nv"])
    ]
    items += [SplitItem(f"bkl{n}", None, "bkl", f"bkl{n}") for n in range(9)]
    subsets = deal(items)
    assert {subsets[i.image_id] for i in items if i.label == "nv"} == set(SUBSETS)
    items[-1] = replace(items[-1], label="df", patient_id="D")
    items += [replace(items[-1], image_id=f"df{n}", pixels=f"df{n}", label="df", patient_id="E")
              for n in range(2)]  # fmt: skip
    with pytest.raises(DataError, match=r"class 'df' has 2 lesions; .* Its 3 images count once"):
        deal(items)
