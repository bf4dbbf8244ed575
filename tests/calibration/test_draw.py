"""Calibration images come from training lesions alone, each once; anything else is caught."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lesiontk.calibration.draw import (
    draw_calibration,
    prove_disjoint,
    read_list,
    select_listed,
)
from lesiontk.data.images import ImageSet
from lesiontk.errors import DataError, LeakageError, UsageError
from tests.image_sets import make_image_set, make_rows

OTHERS = [
    *make_rows("validation", {"bkl": 5, "mel": 4, "nv": 9}),
    *make_rows("test", {"bkl": 5, "mel": 4, "nv": 9}),
]
IMAGES = make_image_set([*OTHERS, *make_rows("train", {"bkl": 20, "mel": 10, "nv": 70}, 2)])
TRAIN = IMAGES.indices("train")
draws = pytest.mark.parametrize("draw", ["balanced", "natural"])


def drawn_by_label(images: ImageSet, rows: np.ndarray) -> dict[str, int]:
    return dict(Counter(images.labels[images.targets[row]] for row in rows))


def replace_at(names: tuple[str, ...], index: int, name: str) -> tuple[str, ...]:
    return (*names[:index], name, *names[index + 1 :])


# ------------------------------------------------------------------------------ drawing


def test_a_balanced_draw_gives_every_class_an_equal_share() -> None:
    rows = draw_calibration(IMAGES, 30, "balanced", 7)
    assert drawn_by_label(IMAGES, rows) == {"bkl": 10, "mel": 10, "nv": 10}


def test_a_balanced_draw_fills_up_where_a_class_is_exhausted() -> None:
    rows = draw_calibration(IMAGES, 60, "balanced", 7)
    assert drawn_by_label(IMAGES, rows) == {"bkl": 20, "mel": 10, "nv": 30}


def test_a_natural_draw_gives_every_class_the_share_it_has() -> None:
    rows = draw_calibration(IMAGES, 30, "natural", 7)
    assert drawn_by_label(IMAGES, rows) == {"bkl": 6, "mel": 3, "nv": 21}


def test_a_natural_draw_gives_a_rare_class_one_image() -> None:
    rare = make_image_set([*OTHERS, *make_rows("train", {"bkl": 1, "mel": 1, "nv": 98})])
    rows = draw_calibration(rare, 10, "natural", 7)
    assert drawn_by_label(rare, rows) == {"bkl": 1, "mel": 1, "nv": 8}


@settings(max_examples=80)
@given(
    lesions=st.fixed_dictionaries({name: st.integers(0, 30) for name in ("bkl", "mel", "nv")}),
    images=st.integers(1, 3),
    share=st.floats(0.05, 1),
    draw=st.sampled_from(["balanced", "natural"]),
    seed=st.integers(0, 2**32),
)
def test_a_draw_has_its_size_from_training_and_no_lesion_twice(
    lesions: dict[str, int],
    images: int,
    share: float,
    draw: Literal["balanced", "natural"],
    seed: int,
) -> None:
    total = sum(lesions.values())
    if total == 0:
        return
    count = max(1, round(share * total))
    made = make_image_set([*OTHERS, *make_rows("train", lesions, images)])
    rows = draw_calibration(made, count, draw, seed)
    assert len(rows) == count
    assert {made.subsets[row] for row in rows} == {"train"}
    assert len({made.groups[row] for row in rows}) == count
    assert list(rows) == sorted(rows)
    if count >= 3:
        received = drawn_by_label(made, rows)
        assert set(received) == {label for label, number in lesions.items() if number}


@draws
def test_the_seed_decides(draw: Literal["balanced", "natural"]) -> None:
    one = draw_calibration(IMAGES, 30, draw, 7)
    assert np.array_equal(draw_calibration(IMAGES, 30, draw, 7), one)
    assert not np.array_equal(draw_calibration(IMAGES, 30, draw, 8), one)


@draws
def test_more_images_than_lesions_are_refused(draw: Literal["balanced", "natural"]) -> None:
    assert len(draw_calibration(IMAGES, 100, draw, 7)) == 100
    with pytest.raises(DataError, match=r"requires 101 images, .*--set calibration\.images=100\."):
        draw_calibration(IMAGES, 101, draw, 7)


# ------------------------------------------------------------------------------ the proof


def test_training_images_are_proved_disjoint() -> None:
    assert prove_disjoint(IMAGES, TRAIN) == {"validation": 18, "test": 18}


@pytest.mark.parametrize("subset", ["validation", "test"])
def test_an_image_of_another_side_is_caught(subset: str) -> None:
    stranger = IMAGES.indices(subset)[0]
    rows = np.append(TRAIN[:9], stranger)
    with pytest.raises(LeakageError) as caught:
        prove_disjoint(IMAGES, rows)
    assert f"1 calibration image(s) share their image with the {subset} split" in str(caught.value)
    assert IMAGES.image_ids[stranger] in str(caught.value)


@pytest.mark.parametrize("subset", ["validation", "test"])
def test_a_lesion_of_another_side_is_caught(subset: str) -> None:
    lesion = IMAGES.groups[IMAGES.indices(subset)[3]]
    cut = replace(IMAGES, groups=replace_at(IMAGES.groups, TRAIN[4], lesion))
    with pytest.raises(LeakageError, match=f"share their lesion with the {subset} .*{lesion}"):
        prove_disjoint(cut, TRAIN[:9])
    prove_disjoint(cut, TRAIN[5:9])


@pytest.mark.parametrize("subset", ["validation", "test"])
def test_pixels_of_another_side_are_caught(subset: str) -> None:
    pixels = IMAGES.hashes[IMAGES.indices(subset)[3]]
    copied = replace(IMAGES, hashes=replace_at(IMAGES.hashes, TRAIN[4], pixels))
    with pytest.raises(LeakageError, match=f"share their pixels with the {subset} .*{pixels}"):
        prove_disjoint(copied, TRAIN[:9])
    prove_disjoint(copied, TRAIN[5:9])


def test_a_proof_against_nothing_is_refused() -> None:
    alone = make_image_set(make_rows("train", {"nv": 9}))
    with pytest.raises(DataError, match="the validation subset of the split has no image"):
        prove_disjoint(alone, alone.indices("train"))


# ------------------------------------------------------------------------------ named lists


def test_a_list_names_its_rows() -> None:
    assert list(select_listed(IMAGES, ["IMG_0050", "IMG_0040"])) == [40, 50]


def test_unknown_ids_of_a_list_are_named() -> None:
    with pytest.raises(DataError, match=r"2 image.s. of the calibration list .*ISIC_1, ISIC_2"):
        select_listed(IMAGES, ["IMG_0040", "ISIC_1", "ISIC_2"])


def test_an_id_that_is_listed_twice_is_named() -> None:
    with pytest.raises(DataError, match="contains IMG_0040 2 times; expected each image once"):
        select_listed(IMAGES, ["IMG_0040", "IMG_0041", "IMG_0040"])


def test_a_list_is_read_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.csv"
    path.write_text("lesion_id,image_id,label\nL1,IMG_0040,nv\nL2,IMG_0041,mel\n")
    assert read_list(str(path)) == ["IMG_0040", "IMG_0041"]


@pytest.mark.parametrize("text", ["", "image_id\n", "image,label\nIMG_0040,nv\n"])
def test_a_list_without_ids_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "mine.csv").write_text(text)
    with pytest.raises(DataError, match=r"mine\.csv has no (column image_id|rows)"):
        read_list(str(tmp_path / "mine.csv"))


def test_a_list_that_is_not_known_is_refused() -> None:
    with pytest.raises(UsageError, match=r"unknown calibration list 'mine'; .* path of a CSV file"):
        read_list("mine")


# ------------------------------------------------------------------------------ covering

SITES = ["back"] * 90 + ["face"] * 8 + ["ear"] * 2


def spread(count: int, seed: int = 7, *, cover: bool = True) -> Counter[str]:
    """The sites of `count` images drawn from one class of 100 lesions, most of them on backs."""
    images = make_image_set([*make_rows("train", {"nv": 100}), *OTHERS])
    sites = [*SITES, *["back"] * len(OTHERS)]
    rows = draw_calibration(images, count, "balanced", seed, [sites] if cover else [])
    return Counter(sites[row] for row in rows)


@pytest.mark.parametrize("seed", range(5))
def test_a_covering_draw_reaches_every_site_as_evenly_as_it_goes(seed: int) -> None:
    assert spread(6, seed) == {"back": 2, "face": 2, "ear": 2}
    assert spread(30, seed) == {"back": 20, "face": 8, "ear": 2}


def test_a_draw_that_covers_nothing_misses_rare_sites() -> None:
    """The twin of the test above."""
    assert any(set(spread(6, seed, cover=False)) < {"back", "face", "ear"} for seed in range(5))


@settings(max_examples=40)
@given(data=st.data(), count=st.integers(4, 60), seed=st.integers(0, 99))
def test_covering_changes_no_share_of_a_class(data: st.DataObject, count: int, seed: int) -> None:
    levels = data.draw(
        st.lists(st.sampled_from("abc"), min_size=len(IMAGES.subsets), max_size=len(IMAGES.subsets))
    )
    for draw in ("balanced", "natural"):
        plain = draw_calibration(IMAGES, count, draw, seed)  # type: ignore[arg-type]
        covering = draw_calibration(IMAGES, count, draw, seed, [levels])  # type: ignore[arg-type]
        assert drawn_by_label(IMAGES, covering) == drawn_by_label(IMAGES, plain)
        assert len({IMAGES.groups[row] for row in covering}) == count
        assert {IMAGES.subsets[row] for row in covering} == {"train"}


def test_several_axes_are_covered_together() -> None:
    images = make_image_set([*make_rows("train", {"nv": 40}), *OTHERS])
    one = ["ab"[row % 2] for row in range(len(images.subsets))]
    other = ["cdef"[row // 2 % 4] for row in range(len(images.subsets))]
    rows = draw_calibration(images, 8, "balanced", 1, [one, other])
    assert Counter(one[row] for row in rows) == {"a": 4, "b": 4}
    assert Counter(other[row] for row in rows) == {"c": 2, "d": 2, "e": 2, "f": 2}


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"image_id\nIMG_1\n" + b"x" * 200_000, "row 3: field larger than"),
        (b"image_id\nIMG_1\0\n", "has null bytes"),
        (b"image_id\n\xff\xff\n", "is not UTF-8 text"),
        (b"", "has no rows"),
    ],
)
def test_a_damaged_list_is_refused_in_words(tmp_path: Path, data: bytes, words: str) -> None:
    path = tmp_path / "mine.csv"
    path.write_bytes(data)
    with pytest.raises(DataError, match=words):
        read_list(str(path))


def test_a_pipe_is_no_list(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "mine.csv")
    with pytest.raises(DataError, match=r"mine.csv is a named pipe; expected a regular file"):
        read_list(str(tmp_path / "mine.csv"))
