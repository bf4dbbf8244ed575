"""Learning rates of layers, weight decay, and batches in parts, against steps worked by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from lesiontk.recipe import TrainSection
from lesiontk.system.frameworks import import_keras
from lesiontk.train.gradient_accumulation import accumulate_gradients
from lesiontk.train.optimizer import layer_rates, make_optimizer


def test_rates_rise_in_geometric_steps_to_the_last_layer() -> None:
    assert layer_rates(["a", "b", "c"], 0.01) == pytest.approx({"a": 0.01, "b": 0.1, "c": 1.0})


def test_without_a_lowest_rate_all_layers_learn_alike() -> None:
    assert set(layer_rates(["a", "b", "c"], 1.0).values()) == {1.0}


def test_a_lone_layer_learns_at_the_full_rate_or_the_lowest() -> None:
    assert layer_rates(["a"], 1.0) == {"a": 1.0}


def make_model() -> Any:
    """Three dense layers; their weights are ones, so that the decay is easily seen."""
    keras = import_keras()
    keras.utils.set_random_seed(0)
    image = keras.Input((4, 4, 3))
    x = keras.layers.Flatten()(image)
    for name in ("first", "second"):
        x = keras.layers.Dense(6, name=name, activation="tanh")(x)
    return keras.Model(image, keras.layers.Dense(3, name="logits")(x))


def step(
    section: TrainSection, *, gradient: float = 0.5
) -> dict[str, tuple[NDArray[np.float32], NDArray[np.float32]]]:
    """Return variable -> (before, after) one step along a constant gradient."""
    model = make_model()
    optimizer = make_optimizer(section, model, section.learning_rate)
    variables = model.trainable_variables
    before = [variable.numpy() for variable in variables]
    optimizer.apply_gradients(
        [(np.full(variable.shape, gradient, np.float32), variable) for variable in variables]
    )
    return {
        variable.name.removesuffix(":0"): (old, variable.numpy())
        for variable, old in zip(variables, before, strict=True)
    }


def test_a_step_is_as_long_as_the_layers_rate() -> None:
    """The first Adam step is the rate times the gradient's sign, whatever its size."""
    section = TrainSection(learning_rate=0.01, lowest_rate=0.01, weight_decay=0.0)
    moved = step(section)
    for layer, rate in (("first", 1e-4), ("second", 1e-3), ("logits", 1e-2)):
        for part in ("kernel", "bias"):
            before, after = moved[f"{layer}/{part}"]
            np.testing.assert_allclose(before - after, rate, rtol=2e-2)


def test_decay_shrinks_kernels_by_the_layers_rate_and_spares_biases() -> None:
    section = TrainSection(learning_rate=0.01, lowest_rate=0.01, weight_decay=0.5)
    for name, (before, after) in step(section, gradient=0.0).items():
        layer, part = name.split("/")
        rate = {"first": 1e-4, "second": 1e-3, "logits": 1e-2}[layer]
        expected = before * (1 - (0.5 * rate if part == "kernel" else 0))
        np.testing.assert_allclose(after, expected, rtol=1e-6)


def test_it_steps_like_keras_own_adamw_where_all_rates_are_one() -> None:
    keras = import_keras()
    section = TrainSection(learning_rate=0.01, weight_decay=0.3)
    ours, theirs = make_model(), make_model()
    reference = keras.optimizers.AdamW(0.01, weight_decay=0.3)
    reference.exclude_from_weight_decay(var_names=["bias"])
    own = make_optimizer(section, ours, section.learning_rate)
    generator = np.random.default_rng(0)
    for _ in range(4):
        gradients = [
            generator.normal(size=v.shape).astype(np.float32) for v in ours.trainable_variables
        ]
        own.apply_gradients(list(zip(gradients, ours.trainable_variables, strict=True)))
        reference.apply_gradients(list(zip(gradients, theirs.trainable_variables, strict=True)))
    for a, b in zip(ours.get_weights(), theirs.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("parts", [2, 4])
def test_a_batch_in_parts_gives_the_same_step(parts: int) -> None:
    generator = np.random.default_rng(1)
    images = generator.uniform(-1, 1, (8, 4, 4, 3)).astype(np.float32)
    targets = np.eye(3, dtype=np.float32)[generator.integers(0, 3, 8)]
    losses, weights = [], []
    for micro_batches in (1, parts):
        model = make_model()
        accumulating = accumulate_gradients(model, micro_batches)
        keras = import_keras()
        accumulating.compile(
            keras.optimizers.SGD(0.5), keras.losses.CategoricalCrossentropy(from_logits=True)
        )
        history = accumulating.fit(
            images, targets, batch_size=8, epochs=3, verbose=0, shuffle=False
        )
        losses.append(history.history["loss"])
        weights.append(model.get_weights())
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-4)
    for a, b in zip(*weights, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
    assert not np.allclose(weights[0][0], make_model().get_weights()[0], atol=1e-4)
