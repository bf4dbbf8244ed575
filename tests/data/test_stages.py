"""From a folder with its faults to prepared images: inspect, split and prepare, through a store."""

from __future__ import annotations

import csv
import json
import os
import shutil
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lesiontk.data.images import open_images
from lesiontk.data.pictures import load_picture
from lesiontk.data.split import hash_split
from lesiontk.errors import DataError, LeakageError, UsageError
from lesiontk.files.hashing import hash_file
from lesiontk.recipe import ModelSection, SplitRule, TrainSection
from lesiontk.records import SUBSETS, Artefact, Preprocessing
from lesiontk.stages.inspect_images import InspectConfig, InspectStage, read_inspection
from lesiontk.stages.prepare import PrepareConfig, PrepareStage
from lesiontk.stages.split import SplitConfig, SplitStage
from lesiontk.stages.train import TrainConfig
from lesiontk.store import Store
from lesiontk.store.manifest import read_manifest, write_manifest

SIZE = 20
TWINS = 6


def read_rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


def find_picture(folder: Path, image_id: str) -> Path:
    (path,) = folder.rglob(f"{image_id}.jpg")
    return path


@dataclass(frozen=True)
class Folder:
    """A data set with one broken file, and copies of pictures under new ids and new lesions."""

    path: Path
    broken: str
    twin_of: dict[str, str]


@pytest.fixture
def folder(synthetic_folder: Path, tmp_path: Path) -> Folder:
    path = tmp_path / "images"
    shutil.copytree(synthetic_folder, path)
    metadata = path / "HAM10000_metadata.csv"
    rows = read_rows(metadata)
    broken, *others = [row for row in rows if row["dx"] in ("nv", "mel")]
    picture = find_picture(path, broken["image_id"])
    picture.write_bytes(picture.read_bytes()[:200])
    twins = {}
    with metadata.open("a", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]), lineterminator="\n")
        for number, row in enumerate(others[:TWINS]):
            name = f"TWIN_{number}"
            twins[name] = row["image_id"]
            original = find_picture(path, row["image_id"])
            shutil.copy(original, original.with_name(f"{name}.jpg"))
            writer.writerow({**row, "image_id": name, "lesion_id": f"LESION_OF_TWIN_{number}"})
    return Folder(path, broken["image_id"], twins)


def inspect(store: Store, path: Path, **config: Any) -> Artefact:
    return store.build(InspectStage(), InspectConfig(path=str(path), **config), {})


def split(store: Store, inspection: Artefact, task: str = "seven_class", seed: int = 7) -> Artefact:
    rule = SplitRule(test=0.2, validation=0.2, seed=seed)
    return store.build(SplitStage(), SplitConfig(task=task, rule=rule), {"inspection": inspection})


def prepare(store: Store, path: Path, split: Artefact, **config: Any) -> Artefact:
    chosen = PrepareConfig(path=str(path), image_size=SIZE, **config)
    return store.build(PrepareStage(), chosen, {"split": split})


def rewrite_split(split: Artefact, rows: list[dict[str, str]]) -> Artefact:
    """Write another table into a split and make its manifest agree, as a forger would."""
    table = split.path / "split.csv"
    with table.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    manifest = json.loads((split.path / "manifest.json").read_text())
    entry = {"bytes": table.stat().st_size, "sha256": hash_file(table)}
    manifest["files"]["split.csv"] = entry
    write_manifest(split.path, manifest)
    return Artefact(split.path, read_manifest(split.path))


# ------------------------------------------------------------------------------ inspect


def test_inspection_tells_what_is_wrong(store: Store, folder: Folder) -> None:
    inspection = inspect(store, folder.path)
    facts = inspection.facts
    assert facts["source"] == "synthetic"
    assert facts["broken"] == [{"image_id": folder.broken, "reason": "truncated"}]
    assert facts["identical_pixels"] == sorted(sorted(p) for p in folder.twin_of.items())
    assert facts["missing_files"] == []
    assert facts["unlisted_files"] == 0
    rows = read_rows(inspection.file("broken.csv"))
    assert [row["image_id"] for row in rows] == [folder.broken]


def test_inspection_lists_every_image_that_can_be_used(store: Store, folder: Folder) -> None:
    rows = read_inspection(inspect(store, folder.path))
    listed = {row["image_id"]: row for row in read_rows(folder.path / "HAM10000_metadata.csv")}
    assert {row.image_id for row in rows} == set(listed) - {folder.broken}
    for row in rows:
        source = listed[row.image_id]
        assert (row.diagnosis, row.lesion_id) == (source["dx"], source["lesion_id"])
        with Image.open(folder.path / row.location) as image:
            assert (row.width, row.height) == image.size


def test_inspection_counts_lesions_and_images(store: Store, folder: Folder) -> None:
    facts = inspect(store, folder.path).facts
    rows = read_rows(folder.path / "HAM10000_metadata.csv")
    usable = [row for row in rows if row["image_id"] != folder.broken]
    assert facts["images"] == len(usable)
    assert facts["lesions"] == len({row["lesion_id"] for row in usable})
    assert facts["images_by_diagnosis"] == dict(Counter(row["dx"] for row in usable))
    assert sum(facts["lesions_by_diagnosis"].values()) == facts["lesions"]
    assert sum(facts["sex"].values()) == facts["images"]


def test_a_near_copy_is_listed_and_tells_whether_the_lesion_is_the_same(
    store: Store, folder: Folder
) -> None:
    original = folder.twin_of["TWIN_0"]
    with Image.open(find_picture(folder.path, original)) as image:
        brighter = np.clip(np.asarray(image) * 1.01 + 1, 0, 255).astype(np.uint8)
    Image.fromarray(brighter).save(find_picture(folder.path, "TWIN_0"), quality=98)
    inspection = inspect(store, folder.path, near_distance=24)
    pairs = {
        frozenset((row["image_a"], row["image_b"])): row["same_lesion"]
        for row in read_rows(inspection.file("near_duplicates.csv"))
    }
    assert pairs[frozenset(("TWIN_0", original))] == "False"
    assert inspection.facts["near_duplicates"] == len(pairs)
    assert inspection.facts["near_duplicates_across_lesions"] >= 1


def test_a_file_that_changes_is_looked_at_again(store: Store, folder: Folder) -> None:
    before = inspect(store, folder.path)
    assert inspect(store, folder.path) == before
    picture = find_picture(folder.path, "TWIN_1")
    with Image.open(picture) as image:
        pixels = np.asarray(image)
    Image.fromarray(pixels[::-1]).save(picture)
    after = inspect(store, folder.path)
    assert after.key != before.key
    assert after.content != before.content


def test_a_folder_that_was_touched_or_moved_gives_the_same_content(
    store: Store, folder: Folder, tmp_path: Path
) -> None:
    before = inspect(store, folder.path)
    moved = tmp_path / "moved"
    folder.path.rename(moved)
    assert inspect(store, moved) == before
    os.utime(find_picture(moved, "TWIN_1"), (1, 1))
    touched = inspect(store, moved)
    assert touched.key != before.key
    assert touched.content == before.content


def test_more_broken_files_than_allowed_are_an_error(store: Store, folder: Folder) -> None:
    with pytest.raises(DataError, match=f"(?s)1 of the first .*{folder.broken}"):
        inspect(store, folder.path, max_failures=0)


def test_a_folder_that_is_not_there_is_an_error(store: Store, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere does not exist or is not a folder\."):
        inspect(store, tmp_path / "nowhere")
    with pytest.raises(DataError, match="no data folder was specified; expected --data"):
        store.build(InspectStage(), InspectConfig(), {})


# ------------------------------------------------------------------------------ split


def test_no_lesion_and_no_pixels_are_cut(store: Store, folder: Folder) -> None:
    rows = read_rows(split(store, inspect(store, folder.path)).file("split.csv"))
    for column in ("lesion_id", "pixel_sha256", "group"):
        subsets = {(row[column], row["subset"]) for row in rows}
        assert len(subsets) == len({row[column] for row in rows})


def test_pixels_under_another_lesion_end_on_the_same_side(store: Store, folder: Folder) -> None:
    rows = read_rows(split(store, inspect(store, folder.path)).file("split.csv"))
    by_id = {row["image_id"]: row for row in rows}
    for twin, original in folder.twin_of.items():
        assert by_id[twin]["lesion_id"] != by_id[original]["lesion_id"]
        for column in ("subset", "group", "pixel_sha256"):
            assert by_id[twin][column] == by_id[original][column]


def test_the_split_counts_its_sides_and_carries_its_hash(store: Store, folder: Folder) -> None:
    made = split(store, inspect(store, folder.path))
    rows = read_rows(made.file("split.csv"))
    assert {row["subset"] for row in rows} == set(SUBSETS)
    labels = {row["image_id"]: row["label"] for row in rows}
    subsets = {row["image_id"]: row["subset"] for row in rows}
    assert made.facts["split_hash"] == hash_split(subsets, labels)
    for subset in SUBSETS:
        mine = [row for row in rows if row["subset"] == subset]
        for label, count in made.facts["images"][subset].items():
            groups = {row["group"] for row in mine if row["label"] == label}
            assert count == sum(row["label"] == label for row in mine) >= 1
            assert made.facts["lesions"][subset][label] == len(groups) >= 1


def test_the_task_gives_the_labels(store: Store, folder: Folder) -> None:
    made = split(store, inspect(store, folder.path), task="malignancy")
    malignant = {"mel", "bcc", "akiec"}
    assert made.facts["task"]["labels"] == ["benign", "malignant"]
    for row in read_rows(made.file("split.csv")):
        assert (row["label"] == "malignant") == (row["diagnosis"] in malignant)


def test_another_seed_is_another_split(store: Store, folder: Folder) -> None:
    inspection = inspect(store, folder.path)
    one, two = split(store, inspection, seed=1), split(store, inspection, seed=2)
    assert one.facts["split_hash"] != two.facts["split_hash"]


def test_a_changed_task_file_is_another_split(store: Store, folder: Folder, tmp_path: Path) -> None:
    inspection = inspect(store, folder.path)
    task = tmp_path / "mine.yaml"
    names = ("akiec", "bcc", "bkl", "df", "mel", "nv", "vasc")
    keys = set()
    for melanoma in ("melanoma", "malignant"):
        mapping = {name: melanoma if name == "mel" else "other" for name in names}
        document = {"title": "t", "labels": [melanoma, "other"], "critical": melanoma}
        task.write_text(json.dumps({**document, "mapping": mapping}))
        keys.add(split(store, inspection, task=str(task)).key)
    assert len(keys) == 2


# ------------------------------------------------------------------------------ prepare


@pytest.mark.parametrize("crop_mode", ["crop", "stretch"])
def test_every_image_is_what_load_picture_gives(
    store: Store, folder: Folder, crop_mode: str
) -> None:
    made = split(store, inspect(store, folder.path))
    images = open_images(prepare(store, folder.path, made, crop_mode=crop_mode))
    rows = read_rows(made.file("split.csv"))
    assert images.pixels.shape == (len(rows), SIZE, SIZE, 3)
    assert images.preprocessing == Preprocessing(SIZE, crop_mode)
    for number, row in enumerate(rows):
        expected = load_picture(folder.path / row["location"], images.preprocessing)
        assert np.array_equal(images.pixels[number], expected)
        assert images.image_ids[number] == row["image_id"]
        assert images.labels[images.targets[number]] == row["label"]
        assert images.subsets[number] == row["subset"]
        assert images.hashes[number] == row["pixel_sha256"]


def test_enhancements_are_applied_and_told(store: Store, folder: Folder) -> None:
    made = split(store, inspect(store, folder.path))
    names = ("noise_reduction", "colour_constancy")
    enhanced = prepare(store, folder.path, made, enhance=names)
    images = open_images(enhanced)
    assert images.preprocessing == Preprocessing(SIZE, "crop", enhance=names)
    for number, row in enumerate(read_rows(made.file("split.csv"))):
        expected = load_picture(folder.path / row["location"], images.preprocessing)
        assert np.array_equal(images.pixels[number], expected)
    plain = prepare(store, folder.path, made)
    assert plain.key != enhanced.key
    assert plain.facts["preprocessing"] == {
        "image_size": SIZE, "crop_mode": "crop", "interpolation": "bilinear", "enhance": []
    }  # fmt: skip
    assert not np.array_equal(open_images(plain).pixels, images.pixels)


def test_training_pictures_show_more_around_the_same_square(store: Store, folder: Folder) -> None:
    made = split(store, inspect(store, folder.path))
    plain, wide = (prepare(store, folder.path, made, training_aspect=a) for a in (1.0, 1.2))
    assert (wide.path / "images.npy").read_bytes() == (plain.path / "images.npy").read_bytes()
    images = open_images(wide)
    rows = images.indices("train")[[5, 0, 3]]
    source, places = images.training_source()
    pictures = source[places[rows]]
    assert pictures.shape == (3, SIZE, SIZE * 6 // 5, 3)
    margin = SIZE // 10
    difference = pictures[:, :, margin : margin + SIZE].astype(int) - images.pixels[rows]
    assert np.abs(difference).mean() < 2
    assert not np.array_equal(pictures[0], pictures[1])
    source, places = open_images(plain).training_source()
    np.testing.assert_array_equal(source[places[rows]], images.pixels[rows])


def test_training_pictures_may_be_larger_than_the_images(store: Store, folder: Folder) -> None:
    made = split(store, inspect(store, folder.path))
    plain = prepare(store, folder.path, made)
    large = prepare(store, folder.path, made, training_size=2 * SIZE, training_aspect=1.25)
    assert (large.path / "images.npy").read_bytes() == (plain.path / "images.npy").read_bytes()
    images = open_images(large)
    rows = images.indices("train")[[5, 0, 3]]
    source, places = images.training_source()
    pictures = source[places[rows]]
    assert pictures.shape == (3, 2 * SIZE, SIZE * 5 // 2, 3)
    margin = SIZE // 4
    squares = pictures[:, :, margin : margin + 2 * SIZE].astype(float)
    halved = squares.reshape(3, SIZE, 2, SIZE, 2, 3).mean(axis=(2, 4))
    assert np.abs(halved - images.pixels[rows]).mean() < 4
    assert len(np.unique(squares[0])) > 10


def test_a_key_at_the_value_that_it_had_before_it_existed_changes_no_artefact() -> None:
    config = PrepareConfig(image_size=SIZE)
    assert "training_aspect" not in config.key_document()
    assert config.model_dump()["training_aspect"] == 1
    assert PrepareConfig(image_size=SIZE, training_aspect=1.5).key_document() == {
        **config.key_document(),
        "training_aspect": 1.5,
    }
    assert (
        "stochastic_depth"
        not in TrainConfig(model=ModelSection(), train=TrainSection()).key_document()["train"]
    )


def test_an_unknown_enhancement_is_refused_with_the_nearest() -> None:
    with pytest.raises(UsageError, match=r"Did you mean 'edge_detection'\?"):
        PrepareConfig(image_size=SIZE, enhance=("edge_detect",))


def test_the_images_differ_from_each_other(store: Store, folder: Folder) -> None:
    """The twin of the test above: an image in another's row would be seen."""
    made = split(store, inspect(store, folder.path))
    images = open_images(prepare(store, folder.path, made))
    different = {image.tobytes() for image in images.pixels}
    assert len(different) == len(images.pixels) - len(folder.twin_of)


def test_an_edited_split_is_refused_though_its_manifest_agrees(
    store: Store, folder: Folder
) -> None:
    made = split(store, inspect(store, folder.path))
    rows = read_rows(made.file("split.csv"))
    lesion, _ = Counter(row["lesion_id"] for row in rows).most_common(1)[0]
    moved = next(row for row in rows if row["lesion_id"] == lesion)
    moved["subset"] = "test" if moved["subset"] != "test" else "train"
    forged = rewrite_split(made, rows)
    assert store.damage(forged.path) is None, "the manifest must agree with the edited table"
    with pytest.raises(LeakageError, match=f"share their lesion .*{lesion}"):
        prepare(store, folder.path, forged)


def test_pixels_moved_to_another_side_are_refused_though_the_manifest_agrees(
    store: Store, folder: Folder
) -> None:
    made = split(store, inspect(store, folder.path))
    rows = read_rows(made.file("split.csv"))
    twin = next(row for row in rows if row["image_id"] == "TWIN_0")
    twin["subset"] = "test" if twin["subset"] != "test" else "train"
    with pytest.raises(LeakageError, match=r"share their pixels .*TWIN_0"):
        prepare(store, folder.path, rewrite_split(made, rows))


def test_an_image_that_vanished_since_the_inspection_is_an_error(
    store: Store, folder: Folder
) -> None:
    made = split(store, inspect(store, folder.path))
    find_picture(folder.path, "TWIN_2").unlink()
    with pytest.raises(DataError, match=r"1 image.s. could be read .*TWIN_2 .missing."):
        prepare(store, folder.path, made)


def test_a_class_without_an_image_is_told(
    store: Store, folder: Folder, caplog: pytest.LogCaptureFixture
) -> None:
    inspection = inspect(store, folder.path)
    split(store, inspection)
    assert "no image of" not in caplog.text
    metadata = folder.path / "HAM10000_metadata.csv"
    metadata.write_text(metadata.read_text().replace(",vasc,", ",nv,"))
    split(store, inspect(store, folder.path))
    assert "no image of vasc: a model of the task seven_class cannot learn" in caplog.text
