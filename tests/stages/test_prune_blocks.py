"""Depth pruning as a stage: the least important blocks go, the rest recovers and is converted."""

from __future__ import annotations

import csv
import errno
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from lesiontk.backends.keras.backend import load_model
from lesiontk.cli.main import cli
from lesiontk.compress.block_importance import measure_importance, remove_blocks
from lesiontk.compress.channel_budget import macs_of
from lesiontk.compress.keras_layers import read_layers
from lesiontk.compress.residual_blocks import find_blocks
from lesiontk.data.images import open_images
from lesiontk.errors import DataError, MissingRequirementError, UsageError
from lesiontk.recipe import parse_recipe
from lesiontk.records import MODEL_FILE, Artefact, ModelFacts
from lesiontk.stages.prune_blocks import BLOCKS, BlockPruning
from lesiontk.store import Store
from lesiontk.system.frameworks import import_keras
from lesiontk.technique import describe_step
from lesiontk.workflow.compress import compress_model
from lesiontk.workflow.convert import convert_model
from lesiontk.workflow.train import train_recipe
from tests.tiny.recipe import TINY
from tests.tiny.recipe import TRAIN as RECOVER

LOUD, QUIET = "loud", "quiet"


def save_residual(path: Path) -> Path:
    """Write a network of four blocks, of which the second and the fourth add next to nothing."""
    keras = import_keras()
    keras.utils.set_random_seed(4)
    layers = keras.layers
    image = keras.Input((32, 32, 3), name="image")
    x = layers.Rescaling(1 / 255, name="rescaling")(image)
    x = layers.Conv2D(8, 3, strides=2, activation="relu", name="stem")(x)
    for number, name in enumerate((LOUD, QUIET, LOUD, QUIET)):
        branch = layers.Conv2D(8, 3, padding="same", use_bias=False, name=f"conv_{number}")(x)
        branch = layers.BatchNormalization(name=f"norm_{number}")(branch)
        branch = layers.ReLU(name=f"relu_{number}")(branch)
        x = layers.Add(name=f"{name}_{number}")([branch, x])
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    logits = layers.Dense(7, name="logits")(x)
    model = keras.Model(image, layers.Softmax(name="probabilities")(logits), name="residual")
    for number in (1, 3):
        norm = model.get_layer(f"norm_{number}")
        norm.set_weights([0.01 * norm.get_weights()[0], *norm.get_weights()[1:]])
    kernel, bias = model.get_layer("logits").get_weights()
    model.get_layer("logits").set_weights([10 * kernel, bias])
    model.save(str(path))
    return path


@pytest.fixture(scope="module")
def residual(tiny_store: Store, tmp_path_factory: pytest.TempPathFactory) -> Artefact:
    file = save_residual(tmp_path_factory.mktemp("residual") / "residual.keras")
    document = {key: TINY[key] for key in ("data", "calibration", "evaluate", "explain", "bench")}
    imported = {"file": str(file), "pixels": "0..255"}
    recipe = parse_recipe({"name": "residual", **document, "imported": imported})
    return train_recipe(tiny_store, recipe)


def prune(store: Store, model: Artefact, **options: Any) -> Artefact:
    return compress_model(
        store, model, "prune_blocks", {"images": 32, "recover": RECOVER} | options
    )


@pytest.fixture(scope="module")
def pruned(tiny_store: Store, residual: Artefact) -> Artefact:
    return prune(tiny_store, residual, keep_macs=0.8)


def test_the_least_important_blocks_are_removed(residual: Artefact, pruned: Artefact) -> None:
    change = BlockPruning.from_document(pruned.facts["change"])
    assert change.blocks == 4
    assert len(change.removed) == 1
    assert all(name.startswith(QUIET) for name in change.removed)
    before, after = change.macs
    assert 0.7 * before < after <= 0.8 * before
    names = [layer.name for layer in load_model(pruned.file(MODEL_FILE)).layers]
    assert sum(name.startswith(LOUD) for name in names) == 2
    assert not set(names) & set(change.removed)
    with pruned.file(BLOCKS).open(newline="") as stream:
        rows = {row["block"]: row for row in csv.DictReader(stream)}
    assert [name for name in rows if rows[name]["removed"] == "True"] == list(change.removed)
    loud = min(float(row["importance"]) for name, row in rows.items() if name.startswith(LOUD))
    quiet = max(float(row["importance"]) for name, row in rows.items() if name.startswith(QUIET))
    assert 0 < quiet < 0.1 * loud
    assert sum(float(row["cost"]) for row in rows.values()) == pytest.approx(
        1 - remaining(residual, 4) / remaining(residual, 0)
    )


def remaining(residual: Artefact, count: int) -> int:
    model = load_model(residual.file(MODEL_FILE))
    layers = read_layers(model)
    return macs_of(read_layers(remove_blocks(model, find_blocks(layers)[:count])))


def test_the_importance_is_that_of_the_network_without_the_block(
    tiny_store: Store, residual: Artefact
) -> None:
    """By gates in one network as by a network without the block; the model stays as it was."""
    model = load_model(residual.file(MODEL_FILE))
    weights = model.get_weights()
    blocks = find_blocks(read_layers(model))
    images = open_images(tiny_store.parent(residual, "images")).pixels[:40]
    found = measure_importance(model, blocks, images)
    inputs = images.astype(np.float32)
    whole = np.asarray(model(inputs), np.float64)
    for block, divergence in zip(blocks, found, strict=True):
        without = np.asarray(remove_blocks(model, [block])(inputs), np.float64)
        expected = (whole * np.log(whole / without)).sum(axis=1).mean()
        assert divergence == pytest.approx(expected, rel=1e-3, abs=1e-7)
    for before, after in zip(weights, model.get_weights(), strict=True):
        np.testing.assert_array_equal(before, after)


def test_its_engine_answers_as_it_does_and_its_history_says_so(
    tiny_store: Store, pruned: Artefact
) -> None:
    engine = convert_model(tiny_store, pruned, ["tflite:int8"], ["verify.min_agreement_int8=0"])
    agreement = engine["tflite:int8"].facts["verification"]["agreement"]
    assert agreement["top1_agreement"] > 0.9
    step = pruned.read_facts(ModelFacts).step
    assert describe_step(step).startswith("1 of 4 residual blocks removed, ")


def test_a_budget_of_latency_is_measured(tiny_store: Store, residual: Artefact) -> None:
    made = prune(tiny_store, residual, keep_latency=0.9, latency_on="tflite:float32")
    facts = made.read_facts(ModelFacts)
    change = BlockPruning.from_document(made.facts["change"])
    assert change.latency is not None
    assert change.latency.wanted == 0.9
    assert 1 <= len(change.removed) <= 4
    assert facts.footprint is not None
    assert facts.footprint.engine == "tflite:float32"


def test_a_budget_below_the_other_layers_is_refused(tiny_store: Store, residual: Artefact) -> None:
    with pytest.raises(
        DataError, match=r"without all 4 residual blocks 0\.\d+ of the cost is left"
    ):
        prune(tiny_store, residual, keep_parameters=0.05)


def test_a_full_disk_leaves_no_half_of_the_choice(
    tiny_store: Store, residual: Artefact, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A resumed run would read it."""

    def fill(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", fill)
    with pytest.raises(MissingRequirementError, match="is full"):
        prune(tiny_store, residual, keep_macs=0.81)
    assert not list(tiny_store.workspace.glob(".scratch/*/*blocks.json*"))


def test_a_network_without_blocks_is_refused(tiny_store: Store) -> None:
    model = tiny_store.resolve("latest:tiny", "model")
    with pytest.raises(DataError, match="has no residual block; expected a network with shortcuts"):
        prune(tiny_store, model, keep_macs=0.5)


def test_the_command_takes_its_budget(tiny_store: Store, residual: Artefact) -> None:
    words = ["prune-blocks", residual.name, "--workspace", str(tiny_store.workspace), "--json"]
    done = CliRunner().invoke(cli, [*words, "--quiet"])
    assert isinstance(done.exception, UsageError)
    assert "expected one of keep_macs, keep_parameters, keep_latency" in str(done.exception)
    keys = [f"recover={json.dumps(RECOVER)}", "images=32"]
    options = [word for key in keys for word in ("--set", key)]
    done = CliRunner().invoke(cli, [*words, "--quiet", "--keep-macs", "0.8", *options])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["change"]["blocks"] == 4
