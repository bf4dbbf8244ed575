"""Quantization-aware training as a stage: its engines say what the rounded model says."""

from __future__ import annotations

import csv
import json
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from lesiontk.backends import open_engine
from lesiontk.backends.answers import engine_file
from lesiontk.backends.learned_ranges import LEARNED, match_tensors, read_learned
from lesiontk.cli.main import cli
from lesiontk.compress.qat_stage import AWARE
from lesiontk.data.images import open_images
from lesiontk.errors import DataError, UsageError
from lesiontk.plan import plan_recipe
from lesiontk.recipe import Recipe, parse_recipe
from lesiontk.records import Artefact
from lesiontk.store import Store
from lesiontk.workflow import convert_model, train_recipe

from .test_distil_stage import TINY

TRAIN = {**TINY["train"], "learning_rate": 1e-4}


def recipe(*steps: dict[str, Any]) -> Recipe:
    document = json.loads(json.dumps(TINY))
    document["train"]["epochs"] = 4
    document["compress"] = list(steps)
    document["calibration"] = {"images": 32}
    document["verify"] = {"min_agreement_int8": 0.0}  # a model that has hardly learned wavers
    return parse_recipe(document)


def qat(**options: Any) -> dict[str, Any]:
    return {"qat": {"train": TRAIN, "images": 32, **options}}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store(tmp_path_factory.mktemp("workspace"))


@pytest.fixture(scope="module")
def model(store: Store) -> Artefact:
    return train_recipe(store, recipe(qat()))


@pytest.fixture(scope="module")
def engines(store: Store, model: Artefact) -> dict[str, Artefact]:
    return convert_model(store, model, ["tflite:int8", "onnx:int8", "tensorrt:int8"])


def agreement(store: Store, model: Artefact, engine: Artefact) -> float:
    """How often an engine and the model with its rounding give a validation image one class."""
    images = open_images(store.parent(model, "images"))
    said = np.load(model.file(AWARE))
    with open_engine(engine_file(engine)) as opened:
        received = opened.predict(images.pixels[images.indices("validation")])
    return float((said.argmax(axis=1) == received.argmax(axis=1)).mean())


def test_the_engines_say_what_the_rounded_model_says(
    store: Store, model: Artefact, engines: dict[str, Artefact]
) -> None:
    for target in ("tflite:int8", "onnx:int8"):
        assert agreement(store, model, engines[target]) >= 0.99


def test_the_engines_take_the_learned_ranges(
    store: Store, model: Artefact, engines: dict[str, Artefact]
) -> None:
    learned = read_learned(model.file(LEARNED))
    assert "logits" in learned
    for engine in engines.values():
        assert engine.facts["quantization"].get("corrected_biases", 0) == 0
        ranges = store.parent(engine, "ranges")
        assert ranges.facts["learned"] == len(learned)
        with ranges.file("ranges.csv").open(newline="") as stream:
            ends = {(float(r["low"]), float(r["high"])) for r in csv.DictReader(stream)}
        assert {(low, high) for low, high in learned.values()} <= ends


def test_they_hold_int8_weights_and_compute_in_int8(engines: dict[str, Artefact]) -> None:
    for engine in engines.values():
        assert engine.facts["verification"]["passed"]
        assert all("softmax" in op.lower() for op in engine.facts["float_operators"])


def test_the_model_has_no_normalisation_left(model: Artefact) -> None:
    from lesiontk.backends.keras_backend import MODEL_FILE, load_model

    kinds = {type(layer).__name__ for layer in load_model(model.file(MODEL_FILE)).layers}
    assert "BatchNormalization" not in kinds
    assert not any("Quantize" in kind for kind in kinds)


def test_it_follows_pruning_and_nothing_follows_it(store: Store) -> None:
    prune = {"prune": {"keep_macs": 0.5, "images": 16, "recover": TRAIN}}
    made = train_recipe(store, recipe(prune, qat(scheme="tensorrt")))
    assert made.facts["qat"]["scheme"] == "tensorrt"
    with pytest.raises(UsageError, match="prune cannot follow qat"):
        plan_recipe(recipe(qat(), prune))


def test_rounding_is_not_learned_in_half_precision() -> None:
    with pytest.raises(UsageError, match="train takes no mixed_precision"):
        plan_recipe(recipe(qat(train={**TRAIN, "mixed_precision": True})))


def test_the_command_leads_to_the_same_stage(store: Store, model: Artefact) -> None:
    origin = store.parent(model, "model")
    settings = [f"train.{key}={value}" for key, value in TRAIN.items()]
    options = [word for item in (*settings, "images=32") for word in ("--set", item)]
    command = ["qat", origin.name, *options, "--json", "--workspace", str(store.workspace)]
    done = CliRunner().invoke(cli, command)
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["model"] == model.name


# ------------------------------------------------------------------------- matching


def test_tensors_are_matched_by_their_values_in_either_layout() -> None:
    generator = np.random.default_rng(1)
    a, b = generator.normal(size=(1, 4, 4, 3)), generator.normal(size=(1, 5))
    tensors = {
        "x": a.transpose(0, 3, 1, 2),
        "y": a + 1e-6,
        "z": b.reshape(1, 5, 1, 1),
        "other": a + 0.1,
        "sum": generator.normal(size=(1, 9)),
    }
    assert match_tensors({"conv": a, "dense": b}, tensors) == {
        "x": "conv", "y": "conv", "z": "dense",
    }  # fmt: skip


def test_a_layer_without_a_tensor_is_an_error() -> None:
    a = np.ones((1, 4))
    with pytest.raises(DataError, match="no tensor of the graph takes the values of layer 'conv'"):
        match_tensors({"conv": a}, {"x": 2 * a})
