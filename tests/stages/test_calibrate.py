"""The stage writes a list of training images, proves it, and proves it again when it is used."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lesiontk.calibration.brightness import measure_luma
from lesiontk.data.images import ImageSet, open_images
from lesiontk.errors import LeakageError
from lesiontk.recipe import CalibrateConfig, parse_recipe
from lesiontk.records import Artefact
from lesiontk.stages.calibrate import (
    CalibrateStage,
    calibration_rows,
    read_calibration,
)
from lesiontk.stages.inspect_images import read_inspection
from lesiontk.store import Store
from lesiontk.workflow.train import build_data


@pytest.fixture(scope="module")
def prepared(synthetic_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Artefact:
    """Prepared images of the synthetic folder, in a workspace of this module."""
    recipe = parse_recipe(
        {"name": "probe", "data": {"path": str(synthetic_folder), "image_size": 32}}
    )
    return build_data(Store(tmp_path_factory.mktemp("prepared"), threads=1), recipe, "images")


@pytest.fixture
def images(prepared: Artefact) -> ImageSet:
    return open_images(prepared)


def calibrate(store: Store, prepared: Artefact, config: CalibrateConfig) -> Artefact:
    return store.build(CalibrateStage(), config, {"images": prepared})


def write_list(folder: Path, images: ImageSet, subset: str, count: int) -> str:
    ids = [images.image_ids[row] for row in images.indices(subset)[:count]]
    path = folder / "mine.csv"
    path.write_text("\n".join(["image_id", *ids]))
    return str(path)


def test_the_list_and_its_facts_agree(store: Store, prepared: Artefact, images: ImageSet) -> None:
    made = calibrate(store, prepared, CalibrateConfig(images=14))
    rows = calibration_rows(made, images)
    assert len(rows) == 14
    assert {images.subsets[row] for row in rows} == {"train"}
    facts = made.facts
    assert (facts["draw"], facts["observer"], facts["seed"]) == ("balanced", "min_max", 7)
    assert sum(facts["images_by_label"].values()) == facts["images"] == 14
    assert min(facts["images_by_label"].values()) >= 1
    assert facts["split_hash"] == images.split_hash
    assert facts["pixel_sha256"] == {images.image_ids[r]: images.hashes[r] for r in rows}
    assert facts["disjoint_from"] == {
        subset: len(images.indices(subset)) for subset in ("validation", "test")
    }


def test_a_list_of_training_images_is_taken_as_it_is(
    store: Store, prepared: Artefact, images: ImageSet, tmp_path: Path
) -> None:
    path = write_list(tmp_path, images, "train", 9)
    made = calibrate(store, prepared, CalibrateConfig(list=path))
    assert list(calibration_rows(made, images)) == list(images.indices("train")[:9])
    assert (made.facts["draw"], made.facts["list"]) == ("list", "mine.csv")


@pytest.mark.parametrize("subset", ["validation", "test"])
def test_a_list_of_other_images_is_refused(
    store: Store, prepared: Artefact, images: ImageSet, tmp_path: Path, subset: str
) -> None:
    path = write_list(tmp_path, images, subset, 1)
    with pytest.raises(LeakageError, match=f"share their image with the {subset} split"):
        calibrate(store, prepared, CalibrateConfig(list=path))
    assert store.list_artefacts() == []


def test_a_list_that_changes_is_another_calibration(
    store: Store, prepared: Artefact, images: ImageSet, tmp_path: Path
) -> None:
    keys = {
        calibrate(
            store, prepared, CalibrateConfig(list=write_list(tmp_path, images, "train", count))
        ).key
        for count in (8, 9, 9)
    }
    assert len(keys) == 2


def test_a_list_that_was_edited_to_hold_a_test_image_is_not_used(
    store: Store, prepared: Artefact, images: ImageSet
) -> None:
    made = calibrate(store, prepared, CalibrateConfig(images=14))
    stranger = images.image_ids[images.indices("test")[0]]
    with made.file("calibration.csv").open("a") as stream:
        stream.write(f"{stranger},SYN,nv\n")
    with pytest.raises(LeakageError, match="share their image with the test split"):
        calibration_rows(made, images)


def test_sites_come_from_the_inspection_and_are_unknown_without(
    store: Store, prepared: Artefact
) -> None:
    workspace = Store(prepared.path.parent, threads=1)
    inspection = workspace.parent(workspace.parent(prepared, "split"), "inspection")
    config = CalibrateConfig(images=14)
    parents = {"images": prepared, "inspection": inspection}
    told = store.build(CalibrateStage(), config, parents)
    sites = {row.image_id: row.site for row in read_inspection(inspection)}
    assert {row["image_id"]: row["site"] for row in read_calibration(told)}.items() <= sites.items()
    assert told.facts["sites_of_training"] > 3
    assert len(told.facts["images_by_site"]) == told.facts["sites_of_training"]
    assert calibrate(store, prepared, config).facts["images_by_site"] == {"unknown": 14}


def test_brightness_is_in_quarters_of_the_training_images(
    store: Store, prepared: Artefact, images: ImageSet
) -> None:
    facts = calibrate(store, prepared, CalibrateConfig(images=14)).facts
    luma = measure_luma(images.pixels, images.indices("train"))
    assert facts["brightness_edges"] == pytest.approx(
        np.quantile(luma, (0.25, 0.5, 0.75)), abs=1e-3
    )
    assert list(facts["images_by_brightness"]) == ["darkest", "dark", "bright", "brightest"]
    assert min(facts["images_by_brightness"].values()) >= 2


def test_what_is_covered_is_part_of_the_key(store: Store, prepared: Artefact) -> None:
    keys = {
        calibrate(store, prepared, CalibrateConfig(images=14, cover=cover)).key
        for cover in ((), ("site",), ("site", "brightness"))
    }
    assert len(keys) == 3
