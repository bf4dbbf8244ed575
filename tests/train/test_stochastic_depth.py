"""Skipping residual blocks: the same network at inference, another at each step of training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lesiontk.errors import UsageError
from lesiontk.models.architecture import Architecture, Normalization, build_model
from lesiontk.progress import NoProgress
from lesiontk.system.frameworks import import_keras, import_tensorflow
from lesiontk.train.loop import train_model
from lesiontk.train.stochastic_depth import add_stochastic_depth
from tests.train.colours import (
    SIZE,
    KilledError,
    KillingProgress,
    build,
    make_images,
    make_section,
)


def residual_body(x: Any) -> Any:
    """Two residual blocks, the shortcut once first and once second, and a projected one."""
    layers = import_keras().layers
    x = layers.Conv2D(6, 3, 2, name="stem")(x)
    x = layers.Add(name="first")([layers.Conv2D(6, 3, padding="same", name="a")(x), x])
    x = layers.Add(name="second")([x, layers.Conv2D(6, 3, padding="same", name="b")(x)])
    return layers.Add(name="projected")(
        [layers.Conv2D(6, 1, name="c")(x), layers.Conv2D(6, 3, padding="same", name="d")(x)]
    )


def build_residual(size: int | None = SIZE) -> Any:
    normalization = Normalization(1 / 128, (-1.0,) * 3)
    architecture = Architecture("residual", SIZE, normalization, residual_body)
    return build_model(architecture, image_size=size, classes=3)


def trace(model: Any, name: str, pixels: Any, *, training: bool) -> Any:
    """Return the inputs and the output of one layer."""
    keras = import_keras()
    layer = model.get_layer(name)
    return keras.Model(model.inputs, [*layer.input, layer.output])(pixels, training=training)


@pytest.fixture(scope="module")
def pixels() -> Any:
    return import_tensorflow().constant(
        np.random.default_rng(0).uniform(0, 255, (400, SIZE, SIZE, 3)).astype(np.float32)
    )


def test_inference_is_unchanged(pixels: Any) -> None:
    model = build_residual()
    changed = add_stochastic_depth(model, 0.5)
    np.testing.assert_array_equal(changed(pixels), model(pixels))
    assert [w.name for w in changed.weights] == [w.name for w in model.weights]


@pytest.mark.parametrize(("name", "branch", "rate"), [("first", 0, 0.25), ("second", 1, 0.5)])
def test_a_block_is_skipped_for_some_images_and_weighs_more_for_the_others(
    name: str, branch: int, rate: float, pixels: Any
) -> None:
    changed = add_stochastic_depth(build_residual(), 0.5)
    import_keras().utils.set_random_seed(1)
    *inputs, output = trace(changed, name, pixels, training=True)
    added = np.asarray(output - inputs[1 - branch])
    skipped = np.abs(added).max(axis=(1, 2, 3)) < 1e-6
    assert skipped.mean() == pytest.approx(rate, abs=0.07)  # n = 400: three standard errors
    kept = np.asarray(inputs[branch])[~skipped] / (1 - rate)
    np.testing.assert_allclose(added[~skipped], kept, rtol=1e-4, atol=1e-5)


def test_a_projected_shortcut_is_never_skipped(pixels: Any) -> None:
    changed = add_stochastic_depth(build_residual(), 0.9)
    first, second, output = trace(changed, "projected", pixels, training=True)
    np.testing.assert_allclose(output, first + second, rtol=1e-5, atol=1e-5)


def test_a_network_without_residual_blocks_is_refused() -> None:
    with pytest.raises(UsageError, match=r"stochastic_depth is 0.2, but tiny has no residual"):
        add_stochastic_depth(build(), 0.2)


def test_no_rate_changes_nothing() -> None:
    model = build()
    assert add_stochastic_depth(model, 0.0) is model


def test_a_killed_training_resumes_with_the_same_draws(tmp_path: Path) -> None:
    section = make_section(stochastic_depth=0.5, epochs=3)

    def train(name: str, progress: Any) -> Any:
        (tmp_path / name).mkdir(exist_ok=True)
        return train_model(build_residual, make_images(), section, tmp_path / name, progress)

    whole, course = train("whole", NoProgress())
    with pytest.raises(KilledError):
        train("killed", KillingProgress(6))
    resumed, again = train("killed", NoProgress())
    assert again.curves == course.curves
    for a, b in zip(resumed.get_weights(), whole.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)
    assert [type(layer).__name__ for layer in whole.layers].count("Add") == 3
