"""Every flip is in the table, the first ones have pictures and the evidence for both classes."""

from __future__ import annotations

import csv

import numpy as np
import pytest
from PIL import Image

from lesiontk.data.images import ImageSet
from lesiontk.errors import DataError
from lesiontk.explain.flips import TABLE, Direction
from lesiontk.explain.overlay import EDGE
from lesiontk.recipe import read_recipe
from lesiontk.records import Artefact
from lesiontk.stage import StepId
from lesiontk.stages.flips import FlipsConfig, FlipsStage, read_flips
from lesiontk.store import Store
from lesiontk.workflow.plan import plan_recipe
from tests.untrained import ModelConfig, UntrainedModel, make_up

INT8, FLOAT = "tflite:int8", "tflite:float32"


@pytest.fixture(scope="module")
def parents(prepared: Artefact, images: ImageSet, shared_store: Store) -> dict[str, Artefact]:
    """The engine takes a melanoma for a nevus, a nevus for a melanoma and a nevus for a keratosis;
    the parent is right."""
    config = ModelConfig(split_hash=images.split_hash)
    labels = [images.labels[images.targets[row]] for row in images.indices("test")]
    nevi = [row for row, label in enumerate(labels) if label == "nv"]
    doubts = {nevi[0]: ("bkl", 0.6), nevi[1]: ("mel", 0.6), labels.index("mel"): ("nv", 0.5)}
    return {
        "model": shared_store.build(UntrainedModel(), config, {"images": prepared}),
        "images": prepared,
        StepId("evaluation", FLOAT): make_up(shared_store, prepared, images, {}),
        StepId("evaluation", INT8): make_up(shared_store, prepared, images, doubts),
    }


def build(store: Store, parents: dict[str, Artefact], count: int) -> Artefact:
    return store.build(FlipsStage(), FlipsConfig(target=INT8, images=count), parents)


def test_a_lost_melanoma_comes_first_and_the_table_has_all(
    shared_store: Store, parents: dict[str, Artefact], images: ImageSet
) -> None:
    made = build(shared_store, parents, 2)
    found = read_flips(made)
    assert [(f.true_label, f.from_label, f.to_label, f.direction) for f in found.flips] == [
        ("mel", "mel", "nv", Direction.LOST),
        ("nv", "nv", "mel", Direction.RAISED),
        ("nv", "nv", "bkl", Direction.WITHIN),
    ]
    assert (found.target, found.parent, found.reference) == (INT8, FLOAT, False)
    assert found.judged == len(images.indices("test"))
    assert found.flips[0].parent["mel"] == 1
    assert found.flips[0].engine["nv"] == 0.5
    with made.file(TABLE).open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["image_id"] for row in rows] == [flip.image_id for flip in found.flips]
    assert float(rows[0]["engine_nv"]) == 0.5
    assert made.facts["positive_to_negative"] == 1


def test_only_the_first_have_pictures_of_the_image_and_of_both_classes(
    shared_store: Store, parents: dict[str, Artefact], images: ImageSet
) -> None:
    made = build(shared_store, parents, 2)
    found = read_flips(made)
    assert found.pictured == found.flips[:2]
    assert found.layer == "block5_relu"
    for flip in found.pictured:
        assert [heat.label for heat in flip.evidence] == [flip.from_label, flip.to_label]
        assert flip.picture is not None
        pixels = images.pixels[images.image_ids.index(flip.image_id)]
        shown = Image.open(made.file(flip.picture))
        assert shown.size == (EDGE, EDGE)
        small = np.asarray(shown.resize(pixels.shape[:2])).astype(int)
        assert np.abs(small - pixels).mean() < 12
        assert all(made.file(heat.file).stat().st_size > 500 for heat in flip.evidence)
    assert len(list(made.path.glob("*.jpg"))) == 6


def test_an_engine_that_changes_nothing_has_no_flip(
    shared_store: Store, parents: dict[str, Artefact]
) -> None:
    same = {**parents, StepId("evaluation", INT8): parents[StepId("evaluation", FLOAT)]}
    found = read_flips(build(shared_store, same, 9))
    assert found.flips == ()
    assert set(found.counts.values()) == {0}


def test_without_the_parents_evaluation_it_is_refused(
    shared_store: Store, parents: dict[str, Artefact]
) -> None:
    alone = {role: made for role, made in parents.items() if role != f"evaluation:{FLOAT}"}
    with pytest.raises(DataError, match="tflite:int8 has no full-precision parent among"):
        build(shared_store, alone, 3)


def test_a_recipe_shows_the_flips_of_each_reduced_engine() -> None:
    convert = f"convert=[keras:float32, {FLOAT}, {INT8}]"
    plan = plan_recipe(read_recipe("demo", [convert]))
    steps = [step for step in plan.steps if step.stage == "flips"]
    assert [step.name for step in steps] == [f"flips:{INT8}"]
    assert steps[0].name in plan["report"].parents
    assert {f"evaluation:{FLOAT}", f"evaluation:{INT8}"} <= set(steps[0].parents)
    assert steps[0].config == FlipsConfig(target=INT8, images=24)
    for key in ("explain.flips=0", "explain.images=0"):
        without = plan_recipe(read_recipe("demo", [convert, key]))
        assert not [step for step in without.steps if step.stage == "flips"], key
