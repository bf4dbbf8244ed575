"""A network on smaller images: the same weights, images and figures of its own size."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from pydantic import ValidationError

from lesiontk.backends.keras.backend import load_model
from lesiontk.backends.reference_outputs import engine_file
from lesiontk.cli.main import cli
from lesiontk.compress.keras_layers import require_input_size, with_input_size
from lesiontk.data.images import open_images
from lesiontk.data.synthetic.dataset import write_synthetic_dataset
from lesiontk.errors import DataError, UsageError
from lesiontk.recipe import Recipe, parse_recipe
from lesiontk.records import Artefact
from lesiontk.stage import EngineName
from lesiontk.stages.bench import read_benchmark
from lesiontk.stages.parent_predictions import SOFT_TARGETS
from lesiontk.stages.resize import ResizeConfig
from lesiontk.store import Store
from lesiontk.system.frameworks import import_keras
from lesiontk.workflow.benchmark import benchmark_model
from lesiontk.workflow.calibration_lists import draw_list
from lesiontk.workflow.compress import compress_model
from lesiontk.workflow.convert import convert_model
from lesiontk.workflow.lineage import lineage_of, trained_of
from lesiontk.workflow.plan import plan_recipe
from lesiontk.workflow.train import train_recipe
from tests.tiny.recipe import TINY
from tests.tiny.recipe import TRAIN as RECOVER

LARGER: dict[str, Any] = {**TINY, "data": {**TINY["data"], "image_size": 48}}


def recipe(*compress: dict[str, Any]) -> Recipe:
    return parse_recipe({**json.loads(json.dumps(LARGER)), "compress": list(compress)})


@pytest.fixture(scope="module")
def store(tiny_store: Store) -> Store:
    return tiny_store


@pytest.fixture(scope="module")
def parent(store: Store) -> Artefact:
    return train_recipe(store, recipe())


@pytest.fixture(scope="module")
def smaller(store: Store, parent: Artefact) -> Artefact:
    """The parent on smaller images, not trained again, by the command's way."""
    return compress_model(store, parent, "resize", {"image_size": 32}, ["recover=null"])


def test_the_weights_are_the_parents(parent: Artefact, smaller: Artefact) -> None:
    ours, theirs = (load_model(engine_file(model)) for model in (smaller, parent))
    assert ours.input_shape == (None, 32, 32, 3)
    for mine, its in zip(ours.get_weights(), theirs.get_weights(), strict=True):
        np.testing.assert_array_equal(mine, its)
    before, after = smaller.facts["change"]["macs"]
    assert 0.3 < after / before < 0.6
    assert smaller.facts["change"]["image_size"] == [48, 32]


def test_its_images_are_prepared_anew_and_judged(store: Store, smaller: Artefact) -> None:
    images = open_images(store.parent(smaller, "images"))
    assert images.pixels.shape[1:] == (32, 32, 3)
    assert smaller.facts["preprocessing"]["image_size"] == 32
    rows = images.indices("validation")
    said = load_model(engine_file(smaller))(images.pixels[rows].astype(np.float32))
    right = float((np.argmax(said, axis=1) == images.targets[rows]).mean())
    assert smaller.facts["validation"]["metrics"]["accuracy"] == pytest.approx(right)


def test_the_parent_teaches_of_its_own_images(store: Store, parent: Artefact) -> None:
    options = {"image_size": 32, "recover": RECOVER}
    taught = compress_model(store, parent, "resize", options)
    soft_targets = store.parent(taught, "soft_targets")
    asked = open_images(store.parent(soft_targets, "images"))
    assert asked.pixels.shape[1:] == (48, 48, 3)
    rows = asked.indices("train")[:8]
    said = load_model(engine_file(parent))(asked.pixels[rows].astype(np.float32))
    np.testing.assert_allclose(
        np.load(soft_targets.file(SOFT_TARGETS))[rows], said, rtol=1e-3, atol=1e-4
    )
    before, after = (load_model(engine_file(model)).get_weights() for model in (parent, taught))
    assert any(not np.array_equal(a, b) for a, b in zip(before, after, strict=True))


@pytest.fixture(scope="module")
def pruned(store: Store, smaller: Artefact) -> Artefact:
    return compress_model(store, smaller, "prune", {"keep_macs": 0.5, "recover": RECOVER})


def test_what_follows_takes_the_new_size(store: Store, pruned: Artefact) -> None:
    assert load_model(engine_file(pruned)).input_shape == (None, 32, 32, 3)
    assert [step["stage"] for step in pruned.facts["history"]] == ["train", "resize"]


def test_what_follows_an_untrained_step_is_taught_by_the_network_before(
    store: Store, parent: Artefact, pruned: Artefact
) -> None:
    assert store.parent(store.parent(pruned, "soft_targets"), "model").content == parent.content


def test_a_recipe_leads_to_the_same_models(store: Store, pruned: Artefact) -> None:
    steps = [
        {"resize": {"image_size": 32, "recover": None}},
        {"prune": {"keep_macs": 0.5, "recover": RECOVER}},
    ]
    assert train_recipe(store, recipe(*steps)).content == pruned.content


def test_engines_are_compared_each_on_images_of_its_size(store: Store, pruned: Artefact) -> None:
    int8 = "tflite:int8"
    changes = ["calibration.images=28", "verify.min_agreement_int8=0.1"]
    rules = [*changes, "bench.rounds=20", "evaluate.resamples=100"]
    convert_model(store, pruned, [int8], changes)
    benchmark = read_benchmark(benchmark_model(store, pruned, [int8], rules))
    rows = benchmark.by_target
    first = rows[EngineName("tflite:float32", reference=True)]
    assert benchmark.image_size == 32
    versus = rows[int8].versus_parent
    assert versus is not None
    assert (versus.parent, versus.reference) == ("tflite:float32", True)
    assert (rows[int8].image_size, first.image_size) == (32, 48)
    assert min(rows[int8].latency.n, first.latency.n) >= 20
    trained = trained_of(store, pruned)
    images = open_images(store.parent(trained, "images"))
    test = images.indices("test")
    said = load_model(engine_file(trained))(images.pixels[test].astype(np.float32))
    right = float((np.argmax(said, axis=1) == images.targets[test]).mean())
    assert first.metrics["accuracy"].value == pytest.approx(right, abs=1e-6)
    assert trained.content == lineage_of(store, pruned)[0].content


def test_calibration_is_drawn_from_the_images_of_the_last_model(store: Store) -> None:
    step = {"resize": {"image_size": 32, "recover": None}}
    drawn = draw_list(store, recipe(step), ["calibration.images=14"])
    assert open_images(store.parent(drawn, "images")).pixels.shape[1:] == (32, 32, 3)


def test_changed_pictures_are_noticed(store: Store, tmp_path: Path) -> None:
    """Under the same names: the parent has seen other pixels, and another split."""
    data = tmp_path / "images"
    write_synthetic_dataset(data, lesions=84, image_size=48, seed=4)
    document = {**LARGER, "data": {"path": str(data), "image_size": 48}}
    model = train_recipe(store, parse_recipe(document))
    moved = data.rename(tmp_path / "moved")
    order = (store, model, "resize", {"image_size": 32}, ["recover=null"])
    with pytest.raises(DataError, match=r"images is not a folder; expected .*--data DIR"):
        compress_model(*order)
    pictures = sorted(moved.rglob("*.jpg"))[:2]
    kept = [picture.read_bytes() for picture in pictures]
    pictures[0].write_bytes(kept[1])
    with pytest.raises(DataError, match=rf"1 image\(s\) have other pixels .*{pictures[0].stem}"):
        compress_model(*order, data=moved)
    pictures[0].write_bytes(kept[0])
    smaller = compress_model(*order, data=moved)
    assert smaller.facts["preprocessing"]["image_size"] == 32


def test_the_command_says_what_is_left(store: Store, parent: Artefact) -> None:
    order = ["resize", parent.name, "--image-size", "40", "--set", "recover=null"]
    result = CliRunner().invoke(cli, [*order, "--workspace", str(store.workspace)])
    assert result.exit_code == 0, result.output
    assert "40 px instead of 48: " in result.output
    assert "of the operations remain; validation balanced accuracy" in result.output


@pytest.mark.parametrize("size", [15, 48, 64])
def test_a_size_that_is_no_smaller_or_too_small_is_refused(size: int) -> None:
    with pytest.raises(UsageError, match=r"expected 32 or more|greater than or equal to 16"):
        plan_recipe(recipe({"resize": {"image_size": size}}))


def test_each_size_is_smaller_than_the_last() -> None:
    steps = [{"resize": {"image_size": size, "recover": None}} for size in (40, 44)]
    with pytest.raises(UsageError, match="is 44; expected 32 or more pixels, and fewer than 40"):
        plan_recipe(recipe(*steps))


def test_lessons_without_training_are_refused() -> None:
    assert ResizeConfig(image_size=32, recover=None).distill is None
    with pytest.raises(ValidationError, match="distill requires recover, which is null"):
        ResizeConfig.model_validate({"image_size": 32, "recover": None, "distill": {}})


def describe_network(*layers: Any) -> Any:
    """A functional model of these layers on pictures of 16 pixels."""
    keras = import_keras()
    image = keras.Input((16, 16, 3))
    tensor = image
    for layer in layers:
        tensor = layer(tensor)
    return keras.Model(image, tensor, name="mine")


def test_a_network_that_does_not_take_a_size_is_refused() -> None:
    layers = import_keras().layers
    flat = describe_network(layers.Flatten(), layers.Dense(2))
    with pytest.raises(UsageError, match="expected 16: mine does not accept images of 8 pixels"):
        require_input_size(flat, 8, "resize.image_size is 8; expected 16")
    deep = describe_network(layers.Conv2D(2, 9), layers.GlobalAveragePooling2D())
    with pytest.raises(UsageError, match=r"does not accept images of 8 pixels: .*[Nn]egative"):
        require_input_size(deep, 8, "expected 16")


def test_a_network_whose_squeezed_features_are_reshaped_takes_any_size() -> None:
    layers = import_keras().layers
    squeezed = describe_network(layers.GlobalAveragePooling2D(), layers.Reshape((1, 1, 3)))
    assert with_input_size(squeezed, 8).input_shape == (None, 8, 8, 3)
    require_input_size(squeezed, 8, "expected 16")
