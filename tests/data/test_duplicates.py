"""A picture that a data set has twice is found, kept in one subset, or refused with its ids."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lesiontk.cli.main import main
from lesiontk.data.duplicates import (
    LISTED_GROUPS,
    LISTED_IDS,
    LISTED_PAIRS,
    Contradictions,
    Crowd,
    find_duplicates,
)
from lesiontk.data.image_table import InspectedImage
from lesiontk.data.split import SplitItem, check_contradictions, group_images
from lesiontk.data.synthetic.dataset import render_view
from lesiontk.errors import DataError
from lesiontk.recipe import SplitRule
from lesiontk.records import Artefact
from lesiontk.stages.inspect_images import InspectConfig, InspectStage
from lesiontk.stages.split import SplitConfig, SplitStage, read_split
from lesiontk.store import Store

Check = Callable[[], tuple[object, str, str]]
LESIONS = 8
CLASSES = ("mel", "nv")


@pytest.fixture
def copies(tmp_path: Path) -> Path:
    """Two folders of pictures without lesion ids, each picture with a copy saved again."""
    folder = tmp_path / "pictures"
    for diagnosis in CLASSES:
        (folder / diagnosis).mkdir(parents=True)
        for lesion in range(LESIONS):
            small = Image.fromarray(render_view(diagnosis, lesion, 0, 48))
            picture = small.resize((240, 240), Image.Resampling.BICUBIC)  # as a camera has it
            picture.save(folder / diagnosis / f"{diagnosis}_{lesion}.png")
            picture.save(folder / diagnosis / f"{diagnosis}_{lesion}_again.jpg", quality=95)
    return folder


def inspect(store: Store, folder: Path) -> Artefact:
    return store.build(InspectStage(), InspectConfig(path=str(folder)), {})


def split(store: Store, folder: Path, **rule: Any) -> Artefact:
    config = SplitConfig(task="malignancy", rule=SplitRule(test=0.25, validation=0.25, **rule))
    return store.build(SplitStage(), config, {"inspection": inspect(store, folder)})


def copies_apart(artefact: Artefact) -> int:
    subsets = {row.image_id: row.subset for row in read_split(artefact)}
    return sum(
        subsets[name] != subsets[f"{name}_again"] for name in subsets if not name.endswith("_again")
    )


@pytest.fixture
def check(
    copies: Path,
    store: Store,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Check:
    """Run ``lesiontk data check`` on the pictures; exit code, standard output and error."""

    def check() -> tuple[object, str, str]:
        arguments = ["check", "cnn_binary", "--data", str(copies), "--quiet"]
        monkeypatch.setattr("sys.argv", ["lesiontk", "data", *arguments])
        monkeypatch.setenv("LESIONTK_WORKSPACE", str(store.workspace))
        with pytest.raises(SystemExit) as ended:
            main()
        return ended.value.code, *capsys.readouterr()

    return check


# ------------------------------------------------------------------------------ copies


def test_a_copy_saved_again_stands_on_the_side_of_its_original(store: Store, copies: Path) -> None:
    made = split(store, copies)
    assert copies_apart(made) == 0
    assert made.facts["near_duplicates"] == "group"
    assert made.facts["near_duplicates_on_several_sides"] == 0


def test_accepted_near_duplicates_are_told(
    store: Store, copies: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The twin: as if the pictures were different ones, copies are in two subsets."""
    made = split(store, copies, near_duplicates="accept")
    apart = copies_apart(made)
    assert apart > 0
    assert made.facts["near_duplicates"] == "accept"
    assert made.facts["near_duplicates_on_several_sides"] == apart
    assert f"in more than one subset: {apart}" in caplog.text


def test_a_copy_under_another_lesion_id_is_one_lesion_with_its_original() -> None:
    items = [
        SplitItem("a", "L1", "nv", "p1", copy_of="a", alike="a"),
        SplitItem("b", "L2", "nv", "p2", copy_of="a", alike="a"),
        SplitItem("c", "L3", "nv", "p3", copy_of="c", alike="a"),
    ]
    assert group_images(items) == {"a": "a", "b": "a", "c": "c"}
    assert group_images(items, near_duplicates="accept") == {"a": "a", "b": "b", "c": "c"}


def test_what_looks_alike_is_one_lesion_where_one_of_them_has_no_id() -> None:
    items = [
        SplitItem("a", "L1", "nv", "p1", copy_of="a", alike="a"),
        SplitItem("b", None, "nv", "p2", copy_of="b", alike="a"),
        SplitItem("c", "L3", "nv", "p3", copy_of="c", alike="c"),
    ]
    assert group_images(items) == {"a": "a", "b": "a", "c": "c"}


def test_patients_and_lesions_are_joined_to_the_coarser_group() -> None:
    items = [
        SplitItem("a", "L1", "nv", "p1", patient_id="P1"),
        SplitItem("b", "L2", "nv", "p2", patient_id="P1"),
        SplitItem("c", "L2", "nv", "p3", patient_id="P2"),
        SplitItem("d", None, "nv", "p4", patient_id="P3"),
    ]
    assert group_images(items) == {"a": "a", "b": "a", "c": "a", "d": "d"}


# ------------------------------------------------------------------------------ contradictions


@pytest.mark.parametrize("quality", [None, 85])
def test_one_picture_under_two_diagnoses_is_refused_with_both_ids(
    store: Store, copies: Path, check: Check, quality: int | None
) -> None:
    original, other = copies / "mel" / "mel_3.png", copies / "nv" / "odd.png"
    if quality is None:
        other.write_bytes(original.read_bytes())
    else:
        Image.open(original).save(other.with_suffix(".jpg"), quality=quality)
    with pytest.raises(DataError, match=r"image has several .*odd \(benign\) and"):
        split(store, copies)
    code, _, error = check()
    assert code == 2
    assert "1 image has several diagnoses: mel_3 (mel) and odd (nv)" in error


def test_a_copy_under_another_diagnosis_can_be_accepted_and_the_same_pixels_cannot() -> None:
    items = [
        SplitItem("a", None, "mel", "p1", copy_of="a", alike="a"),
        SplitItem("b", None, "nv", "p2", copy_of="a", alike="a"),
    ]
    check_contradictions(items, "accept")
    with pytest.raises(DataError, match=r"a \(mel\) and b \(nv\)"):
        check_contradictions(items, "group")
    same = [items[0], SplitItem("c", None, "nv", "p1", copy_of="a", alike="a")]
    with pytest.raises(DataError, match=r"a \(mel\) and c \(nv\)"):
        check_contradictions(same, "accept")


def test_other_names_of_one_diagnosis_do_not_contradict_each_other() -> None:
    rows = [make_row("a", "Melanoma", "p"), make_row("b", "mel", "p"), make_row("c", "nv", "q")]
    hashes = np.array([[0] * 4, [0] * 4, [2**63] * 4], np.uint64)
    assert find_duplicates(rows, hashes, 3).counts.contradictions.pictures == 0
    rows[1] = make_row("b", "nevus", "p")
    found = find_duplicates(rows, hashes, 3).counts
    assert found.contradictions == Contradictions(1, ({"mel": "a", "nv": "b"},))
    rows[1] = make_row("b", "nevus", "another one's")
    found = find_duplicates(rows, hashes, 3).counts
    assert found.contradictions.pictures == 0
    assert found.contradictions_of_copies.examples == ({"mel": "a", "nv": "b"},)


# ------------------------------------------------------------------------------ what is listed


def make_row(image_id: str, diagnosis: str = "nv", pixels: str = "") -> InspectedImage:
    return InspectedImage(
        image_id=image_id,
        lesion_id=None,
        diagnosis=diagnosis,
        location=f"{image_id}.jpg",
        width=8,
        height=8,
        pixel_sha256=pixels or f"pixels of {image_id}",
    )


def test_what_is_listed_has_a_bound_and_the_numbers_have_none() -> None:
    rows = [make_row(f"i{n}", pixels=f"p{n % 2}") for n in range(2000)]
    found = find_duplicates(rows, np.zeros((2000, 4), np.uint64), 16)
    assert found.counts.crowds == (Crowd("i0", 2000),)
    assert (found.pairs, found.counts.near_duplicates) == ([], 0)
    assert found.counts.identical_groups == 2
    assert [len(ids) for ids in found.counts.identical_pixels] == [LISTED_IDS] * 2
    assert set(found.copies) == set(found.alike) == {"i0"}


def test_no_more_than_the_nearest_pairs_are_listed() -> None:
    clusters = 10
    rng = np.random.default_rng(1)
    base = rng.integers(0, 2**64, (clusters, 4), np.uint64)
    hashes = np.repeat(base, 60, axis=0)
    hashes[::60, 0] ^= np.uint64(1)
    rows = [make_row(f"i{n}") for n in range(len(hashes))]
    found = find_duplicates(rows, hashes, 16)
    assert found.counts.near_duplicates == clusters * 60 * 59 // 2
    assert found.counts.near_duplicates_listed == len(found.pairs) == LISTED_PAIRS
    assert found.pairs[0].distance == 0
    assert len(found.counts.identical_pixels) <= LISTED_GROUPS


def test_check_says_none_where_there_is_none_and_how_many_where_there_are(
    copies: Path, check: Check
) -> None:
    _, with_copies, _ = check()
    assert (
        "near-duplicates: 16 pairs, 16 of different lesions; see near_duplicates.csv" in with_copies
    )
    for copy in copies.rglob("*_again.jpg"):
        copy.unlink()
    code, without, _ = check()
    assert code == 0
    assert "near-duplicates: none\n" in without
    assert "broken: none\nlisted without a file: none\n" in without
    assert "(of 0" not in without


def test_the_table_of_images_names_the_clusters(store: Store, copies: Path) -> None:
    text = inspect(store, copies).file("images.csv").read_text()
    for row in csv.DictReader(io.StringIO(text)):
        original = row["image_id"].removesuffix("_again")
        assert row["copy_of"] == row["alike"] == original
