"""A student and its teacher, from a recipe's `compress` to the model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from lesiontk.backends import open_engine
from lesiontk.backends.keras.backend import load_model, read_spec
from lesiontk.backends.reference_outputs import engine_file
from lesiontk.cli.main import cli
from lesiontk.data.crop import crop_and_resize
from lesiontk.data.images import open_images
from lesiontk.data.tasks import load_task, sum_labels
from lesiontk.errors import DataError, UsageError
from lesiontk.recipe import Recipe, TrainSection, parse_recipe
from lesiontk.records import Artefact
from lesiontk.stages import distill, teacher_predictions
from lesiontk.stages.distill import check_growth
from lesiontk.stages.parent_predictions import SOFT_TARGETS
from lesiontk.store import Store
from lesiontk.system.frameworks import import_keras
from lesiontk.workflow.benchmark import PARENT
from lesiontk.workflow.convert import convert_model
from lesiontk.workflow.lineage import engines_of, locate_teacher
from lesiontk.workflow.plan import plan_recipe
from lesiontk.workflow.runner import build_step
from lesiontk.workflow.train import train_recipe
from tests.tiny.recipe import TINY, TRAIN


def recipe(teacher: Path | str | None = None, **data: object) -> Recipe:
    document = json.loads(json.dumps(TINY))
    document["data"].update(data)
    if teacher is not None:
        soft_target = {"teacher": str(teacher), "weight": 1.0, "train": TRAIN}
        document["compress"] = [{"distill": soft_target}]
    return parse_recipe(document)


@pytest.fixture(scope="module")
def store(tiny_store: Store) -> Store:
    return tiny_store


@pytest.fixture(scope="module")
def teacher(store: Store) -> Path:
    """An engine of another input size, on the same split."""
    model = train_recipe(store, recipe(image_size=48))
    return engine_file(convert_model(store, model, [PARENT])[PARENT])


def trained_at(store: Store, size: int) -> Artefact:
    return next(
        model
        for model in store.list_artefacts("model")
        if model.facts["preprocessing"]["image_size"] == size
    )


def predict_with(store: Store, recipe: Recipe) -> Artefact:
    """Return the teacher's soft targets; no student is trained."""
    plan = plan_recipe(recipe)
    return build_step(plan, plan[plan.model].parents["soft_targets"], store, {})


@pytest.fixture(scope="module")
def student(store: Store, teacher: Path) -> Artefact:
    return train_recipe(store, recipe(teacher))


def test_the_student_is_a_model_of_its_own_size(student: Artefact) -> None:
    assert student.kind == "model"
    assert student.facts["preprocessing"]["image_size"] == 32
    assert student.facts["change"]["teacher"] == "keras_float32.keras"
    assert 0 < student.facts["change"]["accuracy_on_training"] <= 1


def test_a_teacher_may_be_a_file_or_a_model_or_engine_of_the_workspace(
    store: Store, teacher: Path
) -> None:
    taught = store.resolve("latest:tiny", "model")
    engine = next(iter(engines_of(store, trained_at(store, 48)).values()))
    assert locate_teacher(store, str(teacher)) == teacher.resolve()
    assert locate_teacher(store, taught.name) == engine_file(taught)
    assert locate_teacher(store, "latest:tiny") == engine_file(taught)
    assert locate_teacher(store, engine.name) == teacher
    images = store.parent(taught, "images")
    with pytest.raises(UsageError, match=r"is of kind images; expected an engine or a model"):
        locate_teacher(store, images.name)


def test_the_teacher_speaks_of_training_images_alone(store: Store, student: Artefact) -> None:
    said = np.load(store.parent(student, "soft_targets").file(SOFT_TARGETS))
    rows = open_images(store.parent(student, "images")).indices("train")
    np.testing.assert_allclose(said[rows].sum(axis=1), 1, rtol=1e-4)
    others = np.setdiff1d(np.arange(len(said)), rows)
    assert len(others)
    assert not said[others].any()


def test_the_student_starts_from_the_model_before_it(store: Store, student: Artefact) -> None:
    assert store.parent(student, "model").manifest.stage.name == "train"


def recipe_of_a_pruned_student(teacher: Path) -> dict[str, Any]:
    document = recipe(teacher).model_dump(mode="json")
    recover = {**TRAIN, "ema": 0.9}
    document["compress"].insert(0, {"prune": {"keep_macs": 0.5, "recover": recover}})
    return document


def test_a_pruned_student_is_taught_as_it_is(store: Store, teacher: Path) -> None:
    document = recipe_of_a_pruned_student(teacher)
    taught = train_recipe(store, parse_recipe(document))
    pruned = store.parent(taught, "model")
    assert pruned.manifest.stage.name == "prune"
    assert taught.facts["parameters"] == pruned.facts["parameters"]
    assert taught.facts["change"]["teacher"] == "keras_float32.keras"
    assert plan_recipe(parse_recipe(document)).trained == "model"


def test_a_pruned_student_grows(store: Store, teacher: Path) -> None:
    document = recipe_of_a_pruned_student(teacher)
    document["compress"][1]["distill"]["train"] |= {"grow": [24], "epochs": 2}
    taught = train_recipe(store, parse_recipe(document))
    model = load_model(engine_file(taught))
    assert model.input_shape == (None, 32, 32, 3)
    assert taught.facts["parameters"] == store.parent(taught, "model").facts["parameters"]


def test_growth_is_refused_where_a_layer_takes_one_size() -> None:
    keras = import_keras()
    image = keras.Input((16, 16, 3))
    model = keras.Model(image, keras.layers.Dense(2)(keras.layers.Flatten()(image)), name="flat")
    with pytest.raises(UsageError, match="expected none for model-1: flat does not accept"):
        check_growth(model, TrainSection(epochs=2, grow=(8,)), "model-1")


@pytest.mark.parametrize("grow", [(32,), (12, 8), (8, 12)])
def test_growth_rises_to_the_size_of_the_images(grow: tuple[int, ...]) -> None:
    keras = import_keras()
    image = keras.Input((16, 16, 3))
    model = keras.Model(image, keras.layers.GlobalAveragePooling2D()(image))
    check_growth(model, TrainSection(epochs=2, grow=(8,)), "model-1")
    with pytest.raises(
        UsageError, match="expected increasing sizes below 16, and an epoch for each"
    ):
        check_growth(model, TrainSection(epochs=2, grow=grow), "model-1")


def test_a_teacher_of_another_split_is_refused(store: Store, teacher: Path) -> None:
    with pytest.raises(DataError, match="the teacher was trained on the split"):
        train_recipe(store, recipe(teacher, split={"seed": 8}))


def test_a_teacher_is_asked_once_whatever_the_labels_and_the_size_of_its_students(
    store: Store, student: Artefact, teacher: Path
) -> None:
    coarse = train_recipe(store, recipe(teacher, task="malignancy", image_size=40))
    assert coarse.facts["labels"] == ["benign", "malignant"]
    asked = store.parent(student, "soft_targets")
    assert store.parent(coarse, "soft_targets").path == asked.path
    assert asked.manifest.stage.name == "teacher_predictions"
    assert asked.facts["labels"] == student.facts["labels"]


def test_a_teacher_s_diagnoses_add_up_to_the_labels_of_a_student() -> None:
    fine = load_task("seven_class")
    sums = sum_labels(fine.labels, load_task("malignancy"))
    assert {name for name, row in zip(fine.labels, sums, strict=True) if row[1]} == {
        "akiec", "bcc", "mel",
    }  # fmt: skip
    np.testing.assert_array_equal(sums.sum(axis=1), 1)
    np.testing.assert_array_equal(sum_labels(fine.labels, fine), np.eye(7))
    with pytest.raises(DataError, match="expected at least one for each of the student's"):
        sum_labels(("mel", "bcc"), load_task("malignancy"))


def test_a_student_of_diagnoses_learns_nothing_from_one_who_puts_them_together(
    store: Store,
) -> None:
    coarse = train_recipe(store, recipe(task="malignancy"))
    teacher = engine_file(convert_model(store, coarse, [PARENT])[PARENT])
    with pytest.raises(DataError, match=r"labels are benign, malignant, and 'benign' is not among"):
        train_recipe(store, recipe(teacher))


def test_a_missing_teacher_is_found_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"teacher .*nobody.keras is not an engine file; expected"):
        plan_recipe(recipe(tmp_path / "nobody.keras"))


def ask(store: Store, *words: str) -> Any:
    done = CliRunner().invoke(
        cli, [*words, "--json", "--quiet", "--workspace", str(store.workspace)]
    )
    if done.exception is not None:
        raise done.exception
    return json.loads(done.stdout)


def test_a_recipe_names_its_teacher_as_the_command_does(
    store: Store, student: Artefact, teacher: Path
) -> None:
    document = {**TINY, "name": "big", "data": {**TINY["data"], "image_size": 48}}
    train_recipe(store, parse_recipe(document))  # the teacher's model, under another name
    assert train_recipe(store, recipe("latest:big")).path == student.path
    engine = next(iter(engines_of(store, trained_at(store, 48)).values()))
    assert train_recipe(store, recipe(engine.key[:12])).path == student.path
    trained = store.parent(student, "model")
    options = [f"train={json.dumps(TRAIN)}", "weight=1.0"]
    sets = [word for option in options for word in ("--set", option)]
    made = ask(store, "distill", trained.name, "--teacher", "latest:big", *sets)
    assert made["model"] == student.name


def test_a_teacher_that_is_not_there_is_said_before_any_work(tmp_path: Path) -> None:
    store, file = Store(tmp_path / "workspace"), tmp_path / "tiny.yaml"
    for teacher, why in (
        (
            "latest:big",
            r"teacher latest:big of compress\.distill: no model in .* matches 'latest:big'",
        ),
        ("nobody.keras", r"teacher nobody\.keras of .*: engine file nobody\.keras does not exist"),
        ("latest:tiny", r"teacher is latest:tiny, which changes with every run of tiny"),
    ):
        file.write_text(json.dumps({**recipe(teacher).model_dump(mode="json")}))
        with pytest.raises((DataError, UsageError), match=why):
            ask(store, "run", str(file), "--dry-run")
    assert not store.workspace.exists()


def test_the_student_of_one_who_may_have_seen_the_test_images_says_so_and_so_do_its_children(
    store: Store, student: Artefact, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    foreign = tmp_path / "foreign.keras"
    load_model(engine_file(student)).save(str(foreign))  # it tells no split
    document = {**TINY, "name": "foreign", "imported": {"file": str(foreign)}}
    unknown = train_recipe(store, parse_recipe(document))
    taught = train_recipe(store, recipe(unknown.name))
    assert "it may have seen the student's test images" in caplog.text
    for made in (unknown, taught):
        assert made.facts["may_have_seen_test"]
        assert read_spec(engine_file(made)).may_have_seen_test
    assert not student.facts["may_have_seen_test"]


# ---------------------------------------------------------------- several teachers, other views


def test_several_teachers_count_by_their_mean(
    store: Store, teacher: Path, student: Artefact
) -> None:
    other = engine_file(store.parent(student, "model"))
    document = json.loads(json.dumps(TINY))
    teachers = [str(teacher), str(other)]
    document["compress"] = [{"distill": {"teacher": teachers, "train": TRAIN}}]
    taught = train_recipe(store, parse_recipe(document))
    both = np.load(store.parent(taught, "soft_targets").file(SOFT_TARGETS))
    one = np.load(store.parent(student, "soft_targets").file(SOFT_TARGETS))
    document["compress"][0]["distill"]["teacher"] = str(other)
    two = np.load(predict_with(store, parse_recipe(document)).file(SOFT_TARGETS))
    np.testing.assert_allclose(both, (one + two) / 2, atol=1e-6)
    assert not np.allclose(one, two, atol=1e-3)
    assert taught.facts["change"]["teacher"] == f"{teacher.name} + {other.name}"


@pytest.mark.parametrize("training_size", [None, 48])
def test_a_teacher_can_predict_each_augmented_image(
    store: Store,
    teacher: Path,
    student: Artefact,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    training_size: int | None,
) -> None:
    """In the size of the training pictures, which it enlarges, or in its own."""
    seen: list[Any] = []
    real = teacher_predictions.make_teach

    def record(*arguments: Any) -> Any:
        teach = real(*arguments)

        def wrapped(pictures: Any) -> Any:
            probabilities = teach(pictures)
            seen.append((pictures, probabilities))
            return probabilities

        return wrapped

    monkeypatch.setattr(distill, "make_teach", record)
    document = json.loads(json.dumps(TINY))
    document["data"]["training_size"] = training_size
    rule = {"teacher": str(teacher), "views": "augmented", "weight": 1.0, "temperature": 1.0,
            "train": {**TRAIN, "augment": "flips"}}  # fmt: skip
    document["compress"] = [{"distill": rule}]
    taught = train_recipe(store, parse_recipe(document))
    assert taught.path != student.path
    images = open_images(store.parent(taught, "images"))
    assert len(seen) >= len(images.indices("train")) // TRAIN["batch_size"]
    pictures, probabilities = seen[0]
    size = training_size or 32
    assert pictures.shape == (TRAIN["batch_size"], size, size, 3)
    with open_engine(teacher) as engine:
        larger = np.stack([crop_and_resize(picture, 48, "stretch") for picture in pictures])
        np.testing.assert_allclose(probabilities, engine.predict(larger), atol=1e-5)
    said = "sees pictures of 32 pixels enlarged to 48; expected data.training_size: 48"
    assert (said in caplog.text) == (training_size is None)
    assert taught.facts["preprocessing"]["image_size"] == 32


def test_teachers_of_different_labels_are_refused(store: Store, teacher: Path) -> None:
    binary = train_recipe(store, recipe(task="malignancy"))
    document = json.loads(json.dumps(TINY))
    teachers = [str(teacher), str(engine_file(binary))]
    document["compress"] = [{"distill": {"teacher": teachers, "train": TRAIN}}]
    with pytest.raises(DataError, match=r"has the labels .*; expected those of the first teacher"):
        train_recipe(store, parse_recipe(document))


# ---------------------------------------------------------------- features, views of the teacher


def recipe_with(teacher: Path, **rule: Any) -> Recipe:
    document = json.loads(json.dumps(TINY))
    document["compress"] = [{"distill": {"teacher": str(teacher), "train": TRAIN, **rule}}]
    return parse_recipe(document)


def teach_with(store: Store, teacher: Path, **rule: Any) -> Artefact:
    return train_recipe(store, recipe_with(teacher, **rule))


def features_of(teacher: Path, pixels: Any) -> Any:
    model = load_model(teacher)
    pool = import_keras().Model(model.input, model.get_layer("dense").output)
    return np.asarray(pool(pixels.astype(np.float32)))


def test_features_of_the_plain_images_are_stored_beside_the_soft_targets(
    store: Store, teacher: Path, student: Artefact
) -> None:
    taught = teach_with(store, teacher, losses=["feature:0.5", "relational"])
    stored, before = (store.parent(m, "soft_targets") for m in (taught, student))
    assert stored.path != before.path
    said = [np.load(artefact.file(SOFT_TARGETS)) for artefact in (stored, before)]
    np.testing.assert_allclose(*said, atol=1e-6)
    assert not before.path.joinpath(teacher_predictions.FEATURES).exists()
    features = np.load(stored.file(teacher_predictions.FEATURES))
    images = open_images(store.parent(trained_at(store, 48), "images"))
    rows = images.indices("train")
    pixels = images.pixels[rows[:8]]
    mirrored = [pixels[:, ::a, ::b] for a in (1, -1) for b in (1, -1)]
    expected = np.mean([features_of(teacher, view) for view in mirrored], axis=0)
    np.testing.assert_allclose(features[rows[:8]], expected, rtol=1e-3, atol=1e-4)
    parameters = store.parent(taught, "model").facts["parameters"]
    assert taught.facts["parameters"] == parameters  # the projection is dropped


@pytest.mark.parametrize("count", [1, 4, 8])
def test_a_teacher_s_mean_is_over_as_many_views_as_asked_for(count: int, teacher: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (3, 48, 48, 3), dtype=np.uint8)
    views = list(teacher_predictions.list_views(pixels, count))
    np.testing.assert_array_equal(views[0], pixels)
    assert len({view.tobytes() for view in views}) == count == len(views)
    with open_engine(teacher) as engine:
        assert engine.expose_features() > 0
        task = load_task("seven_class")
        teach = teacher_predictions.make_teach([engine], task, 1.0, count, engine)
        taught = teach(pixels)
        expected = np.mean([engine.predict(view) for view in views], axis=0)
        np.testing.assert_allclose(taught[:, :7], expected, atol=1e-5)
        features = np.mean([features_of(teacher, view) for view in views], axis=0)
        np.testing.assert_allclose(taught[:, 7:], features, rtol=1e-3, atol=1e-4)


def test_more_views_of_plain_images_are_other_soft_targets(
    store: Store, teacher: Path, student: Artefact
) -> None:
    known = store.parent(student, "soft_targets")
    four, eight = (
        predict_with(store, recipe_with(teacher, teacher_views=views)) for views in (4, 8)
    )
    assert four.path == known.path
    said = [np.load(artefact.file(SOFT_TARGETS)) for artefact in (known, eight)]
    assert 0 < np.abs(said[0] - said[1]).max() < 0.5


def test_features_of_augmented_images_come_with_their_soft_targets(
    store: Store, teacher: Path
) -> None:
    losses = ["feature", "relational:2"]
    taught = teach_with(store, teacher, views="augmented", teacher_views=4, losses=losses)
    config = taught.manifest.config
    assert (config["losses"], config["teacher_views"]) == (losses, 4)
    plain = store.parent(taught, "soft_targets")
    assert not plain.path.joinpath(teacher_predictions.FEATURES).exists()


def test_the_first_teacher_with_features_is_compared(store: Store, teacher: Path) -> None:
    tflite = convert_model(store, trained_at(store, 48), ["tflite:float32"])["tflite:float32"]
    files = [str(engine_file(tflite)), str(teacher)]
    with open_engine(files[0]) as blind, open_engine(files[1]) as open_:
        exposing, width = teacher_predictions.expose_features([blind, open_])
        assert exposing is open_
        assert width == features_of(teacher, np.zeros((1, 48, 48, 3))).shape[1]
        with pytest.raises(UsageError, match=r"no teacher exposes any: .*tflite:float32; expected"):
            teacher_predictions.expose_features([blind])


def test_an_unknown_loss_is_found_before_any_work(teacher: Path) -> None:
    document = json.loads(json.dumps(TINY))
    document["compress"] = [{"distill": {"teacher": str(teacher), "losses": "relatonal"}}]
    with pytest.raises(UsageError, match=r"relatonal.*Did you mean 'relational'"):
        plan_recipe(parse_recipe(document))
