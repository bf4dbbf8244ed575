"""Equalization changes weights, not answers; where it cannot be had, it says so."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from lesiontk.backends.keras.backend import load_model
from lesiontk.cli.main import cli
from lesiontk.compress.equalization import choose_scale
from lesiontk.errors import DataError, UsageError
from lesiontk.records import MODEL_FILE, ModelFacts
from lesiontk.stages.equalize import equalize_model
from lesiontk.store import Store
from lesiontk.system.frameworks import import_keras
from lesiontk.workflow.plan import plan_recipe
from lesiontk.workflow.train import train_recipe
from tests.compress.equal_outputs import assert_equal_outputs
from tests.tiny.recipe import tiny_recipe


def spread(model: Any, name: str) -> float:
    """How much wider the widest output channel of a kernel is than the median one."""
    kernel = model.get_layer(name).get_weights()[0]
    ranges = np.abs(kernel).reshape(-1, kernel.shape[-1]).max(axis=0)
    return float(ranges.max() / np.median(ranges))


def build_uneven(ceiling: float | None) -> Any:
    keras = import_keras()
    image = keras.Input((8, 8, 3), name="image")
    x = keras.layers.Conv2D(16, 3, name="first")(image)
    x = keras.layers.ReLU(ceiling)(x)
    x = keras.layers.MaxPooling2D()(x)
    x = keras.layers.DepthwiseConv2D(3, padding="same", name="depthwise")(x)
    x = keras.layers.ReLU(ceiling)(x)
    x = keras.layers.Conv2D(8, 1, activation="relu", name="second")(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    model = keras.Model(image, keras.layers.Dense(3, name="logits")(x))
    kernel, bias = model.get_layer("first").get_weights()
    uneven = np.geomspace(0.01, 10, 16, dtype=np.float32)
    bias = np.random.default_rng(0).normal(size=bias.shape)
    model.get_layer("first").set_weights([kernel * uneven, bias * uneven])
    return model


def test_the_ranges_become_even_and_the_answers_stay() -> None:
    model = build_uneven(None)
    before = import_keras().models.clone_model(model)
    before.set_weights(model.get_weights())
    assert spread(model, "first") > 20
    pairs = equalize_model(model)
    assert pairs == [("first", "depthwise"), ("depthwise", "second"), ("second", "logits")]
    assert spread(model, "first") < 0.3 * spread(before, "first")
    assert_equal_outputs(before, model, atol=1e-4)


def test_a_bounded_activation_is_left_alone() -> None:
    model = build_uneven(6.0)
    assert equalize_model(model) == [("second", "logits")]


def test_a_channel_without_weights_is_not_scaled() -> None:
    scale = choose_scale(np.array([4.0, 0.0, 1.0]), np.array([1.0, 1.0, 0.0]))
    np.testing.assert_allclose(scale, [2, 1, 1])


def test_a_model_of_bounded_activations_is_refused() -> None:
    keras = import_keras()
    image = keras.Input((8, 8, 3), name="image")
    x = keras.layers.ReLU(6.0)(keras.layers.Conv2D(4, 3, name="first")(image))
    model = keras.Model(image, keras.layers.Conv2D(4, 3, name="second")(x))
    with pytest.raises(DataError, match="no two layers of the model can be equalized"):
        equalize_model(model)


def test_as_a_step_of_a_recipe_it_changes_no_score(tiny_store: Store) -> None:
    made = train_recipe(tiny_store, tiny_recipe({"equalize": {}}))
    parent = tiny_store.parent(made, "model")
    assert made.facts["change"]["pairs"] >= 3
    ours, theirs = (m.read_facts(ModelFacts).validation.balanced_accuracy for m in (made, parent))
    assert ours == pytest.approx(theirs, abs=0.02)
    assert load_model(made.file(MODEL_FILE)).count_params() > 0
    command = ["equalize", parent.name, "--json", "--workspace", str(tiny_store.workspace)]
    done = CliRunner().invoke(cli, command)
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["model"] == made.name
    with pytest.raises(UsageError, match="equalize cannot follow qat"):
        plan_recipe(tiny_recipe({"qat": {}}, {"equalize": {}}))
