"""A real engine and its parent on corrupted pictures of the split that they were trained on."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image, ImageOps

from lesiontk.cli.main import cli
from lesiontk.data.corruptions import CORRUPTIONS, SEVERITIES
from lesiontk.errors import DataError, UsageError
from lesiontk.records import Artefact
from lesiontk.stage import EngineName
from lesiontk.stages import robustness as stage
from lesiontk.stages.evaluate import read_predictions
from lesiontk.stages.robustness import PREDICTIONS, read_robustness
from lesiontk.stages.split import read_split
from lesiontk.store import Store
from lesiontk.workflow.convert import convert_model
from lesiontk.workflow.lineage import robustness_of
from lesiontk.workflow.plan import plan_recipe
from lesiontk.workflow.robustness import measure_robustness, resolve_comparable
from lesiontk.workflow.runner import known_ancestors
from tests.tiny.recipe import tiny_recipe

SMALL = ["evaluate.resamples=100"]


@pytest.fixture(scope="module")
def engine(tiny_store: Store) -> Artefact:
    model = tiny_store.resolve("latest", "model")
    return convert_model(tiny_store, model, ["tflite:int8"])["tflite:int8"]


@pytest.fixture(scope="module")
def made(tiny_store: Store, engine: Artefact) -> Artefact:
    return measure_robustness(tiny_store, engine, SMALL, images=20)


def read_rows(made: Artefact) -> list[dict[str, str]]:
    with made.file(PREDICTIONS).open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_every_corruption_is_measured_at_every_severity(made: Artefact) -> None:
    found = read_robustness(made)
    assert (found.target, found.parent_name) == ("tflite:int8", EngineName("tflite:float32"))
    expected = [(name, severity) for name in CORRUPTIONS for severity in SEVERITIES]
    assert [(result.corruption, result.severity) for result in found.results] == expected
    assert sum(found.images.values()) == found.n
    assert 20 <= found.n <= found.available
    assert len(read_rows(made)) == found.n * (1 + len(expected))


def test_the_clean_predictions_are_those_of_the_evaluations(
    made: Artefact, tiny_store: Store
) -> None:
    clean = {row["image_id"]: row for row in read_rows(made) if row["corruption"] == "clean"}
    for who, target in (("parent", "tflite:float32"), ("engine", "tflite:int8")):
        evaluation = tiny_store.parent(made, f"evaluation:{target}")
        _, outputs, _, image_ids, labels = read_predictions(evaluation)
        for image_id, expected in zip(image_ids, outputs, strict=True):
            if image_id in clean:
                found = [np.float32(clean[image_id][f"{who}_{label}"]) for label in labels]
                np.testing.assert_array_equal(found, expected)


def test_the_images_are_of_the_test_subset_alone(made: Artefact, tiny_store: Store) -> None:
    test = read_predictions(tiny_store.parent(made, "evaluation:tflite:int8"))[3]
    assert {row["image_id"] for row in read_rows(made)} <= set(test)


def test_a_second_call_reuses_it(made: Artefact, tiny_store: Store, engine: Artefact) -> None:
    assert measure_robustness(tiny_store, engine, SMALL, images=20).name == made.name
    assert robustness_of(tiny_store, {"tflite:int8": engine}) == {
        f"robustness:{engine.facts['target']}": made
    }
    assert robustness_of(tiny_store, {}) == {}


def test_a_killed_process_continues_where_it_was(
    tiny_store: Store, engine: Artefact, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stage, "KEPT_EVERY", 5)
    settings: dict[str, Any] = {"images": 20, "corruptions": ["jpeg"]}
    predicted: list[str] = []
    corrupt = stage.corrupt_image

    def die(image: Any, name: str, severity: int, image_id: str) -> Any:
        predicted.append(image_id)
        if len(set(predicted)) > 12:
            raise KeyboardInterrupt
        return corrupt(image, name, severity, image_id)

    monkeypatch.setattr(stage, "corrupt_image", die)
    with pytest.raises(KeyboardInterrupt):
        measure_robustness(tiny_store, engine, SMALL, **settings)
    again: list[str] = []

    def count(image: Any, name: str, severity: int, image_id: str) -> Any:
        again.append(image_id)
        return corrupt(image, name, severity, image_id)

    monkeypatch.setattr(stage, "corrupt_image", count)
    resumed = measure_robustness(tiny_store, engine, SMALL, **settings)
    n = read_robustness(resumed).n
    assert len(set(again)) == n - 10
    whole = [row for row in read_rows(resumed) if row["corruption"] == "jpeg"]
    assert len(whole) == 3 * n


def test_a_picture_that_was_changed_since_the_split_is_refused(
    tiny_store: Store, engine: Artefact, tmp_path: Path
) -> None:
    used = read_rows(measure_robustness(tiny_store, engine, SMALL, images=20))[0]["image_id"]
    done = known_ancestors(engine, tiny_store)
    (row,) = [row for row in read_split(done["split"]) if row.image_id == used]
    folder = Path(shutil.copytree(done["dataset"].path, tmp_path / "copy"))
    again = measure_robustness(tiny_store, engine, SMALL, images=20, data=folder)
    assert read_rows(again)[0]["image_id"] == used
    picture = folder / row.location
    ImageOps.mirror(Image.open(picture)).save(picture)
    with pytest.raises(DataError, match="has other pixels than when the data was split"):
        measure_robustness(tiny_store, engine, SMALL, images=20, corruptions=["blur"], data=folder)
    with pytest.raises(DataError, match=r"expected the folder of the images: --data DIR"):
        measure_robustness(
            tiny_store, engine, SMALL, images=20, corruptions=["blur"], data=folder / "none"
        )


def test_the_model_itself_has_no_parent(tiny_store: Store, engine: Artefact) -> None:
    model = tiny_store.resolve("latest", "model")
    keras = convert_model(tiny_store, model, ["keras:float32"])["keras:float32"]
    with pytest.raises(UsageError, match="keras:float32 is the model in full precision"):
        measure_robustness(tiny_store, keras, SMALL, images=20)


def test_the_latest_engine_is_one_with_a_parent(tiny_store: Store, engine: Artefact) -> None:
    model = tiny_store.resolve("latest", "model")
    convert_model(tiny_store, model, ["keras:float32"])
    assert resolve_comparable(tiny_store, "latest") == engine.name
    assert resolve_comparable(tiny_store, "latest:tiny") == engine.name
    assert resolve_comparable(tiny_store, "engine-0123") == "engine-0123"
    with pytest.raises(UsageError, match=r"no engine of reduced .* fits 'latest:other'"):
        resolve_comparable(tiny_store, "latest:other")


def test_bad_input_is_answered(tiny_store: Store, engine: Artefact) -> None:
    with pytest.raises(UsageError, match=r"unknown corruption 'hairs'.*[Dd]id you mean"):
        measure_robustness(tiny_store, engine, SMALL, images=20, corruptions=["hairs"])
    with pytest.raises(UsageError, match="20 images or more"):
        measure_robustness(tiny_store, engine, ["robustness.images=5"])


def test_a_recipe_measures_its_calibrated_engines_and_reports_them() -> None:
    convert = ["tflite:float32", "tflite:int8"]
    plan = plan_recipe(tiny_recipe(convert=convert, robustness={"images": 20}))
    names = [step.name for step in plan.steps if step.stage == "robustness"]
    assert names == ["robustness:tflite:int8"]
    assert names[0] in plan["report"].parents
    without = plan_recipe(tiny_recipe(convert=convert))
    assert not [step for step in without.steps if step.stage == "robustness"]


def test_the_command_prints_the_answer(
    made: Artefact, tiny_store: Store, engine: Artefact, tmp_path: Path
) -> None:
    words = ["robustness", engine.name, "--images", "20", "--set", SMALL[0]]
    printed = CliRunner().invoke(cli, [*words, "--workspace", str(tiny_store.workspace)])
    assert printed.exit_code == 0, printed.output
    assert made.name in printed.output
    assert "circle of confusion of 0.3 mm" in printed.output
    assert "on average over 18 corruptions" in printed.output
