"""A model without BatchNormalization answers as the one with it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from lesiontk.compress.batchnorm_folding import fold_batchnorm
from lesiontk.compress.keras_layers import read_layers
from lesiontk.errors import DataError
from lesiontk.system.frameworks import import_keras
from tests.compress.equal_outputs import assert_equal_outputs
from tests.compress.random_models import build_random_model, list_seeds


def kinds(model: Any) -> list[str]:
    return [layer.kind for layer in read_layers(model)]


@pytest.mark.parametrize("unusual", [False, True], ids=["usual", "unusual"])
@pytest.mark.parametrize("seed", list_seeds(15))
def test_the_outputs_stay(seed: int, unusual: bool) -> None:
    model = build_random_model(seed, unusual=unusual)
    folded = fold_batchnorm(model)
    assert "BatchNormalization" not in kinds(folded)
    assert_equal_outputs(model, folded)


def test_a_normalization_alone_becomes_a_convolution() -> None:
    keras = import_keras()
    image = keras.Input((8, 8, 3), name="image")
    x = keras.layers.BatchNormalization(name="alone")(image)
    model = keras.Model(image, keras.layers.ReLU()(x))
    rng = np.random.default_rng(1)
    model.get_layer("alone").set_weights([rng.uniform(0.5, 2, 3) for _ in range(4)])
    folded = fold_batchnorm(model)
    assert kinds(folded) == ["InputLayer", "DepthwiseConv2D", "ReLU"]
    assert_equal_outputs(model, folded, atol=1e-3)


def test_no_output_is_lost() -> None:
    keras = import_keras()
    image = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(4, 3, name="features")(image)
    with pytest.raises(DataError, match="has 2 outputs, of the layers relu, features"):
        fold_batchnorm(keras.Model(image, [keras.layers.ReLU(name="relu")(x), x]))


def draw_normalizations(model: Any) -> None:
    generator = np.random.default_rng(1)
    for layer in model.layers:
        if isinstance(layer, import_keras().layers.BatchNormalization):
            shapes = [weights.shape for weights in layer.get_weights()]
            layer.set_weights([generator.uniform(0.5, 2, shape) for shape in shapes])


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("behind", [True, False], ids=["one behind, too", "none behind"])
def test_one_of_flat_features_goes_into_the_dense_layer_that_reads_it(
    bias: bool, behind: bool
) -> None:
    keras = import_keras()
    image = keras.Input((8, 8, 3), name="image")
    x = keras.layers.Conv2D(5, 3, activation="relu")(keras.layers.Rescaling(1 / 255)(image))
    x = keras.layers.BatchNormalization()(keras.layers.GlobalAveragePooling2D()(x))
    x = keras.layers.Dense(4, name="logits", use_bias=bias)(x)
    x = keras.layers.BatchNormalization()(x) if behind else x
    model = keras.Model(image, keras.layers.Softmax()(x))
    draw_normalizations(model)
    folded = fold_batchnorm(model)
    assert kinds(folded) == [kind for kind in kinds(model) if kind != "BatchNormalization"]
    assert_equal_outputs(model, folded, atol=1e-6)


@pytest.mark.parametrize("kind", ["Dropout", "GaussianNoise"])
def test_what_does_nothing_once_trained_may_stand_between(kind: str) -> None:
    keras = import_keras()
    image = keras.Input((8, 8, 3))
    idle = getattr(keras.layers, kind)
    x = keras.layers.BatchNormalization()(idle(0.4)(keras.layers.Conv2D(5, 3)(image)))
    x = keras.layers.BatchNormalization()(keras.layers.Flatten()(keras.layers.ReLU()(x)))
    model = keras.Model(image, keras.layers.Dense(4)(idle(0.4)(idle(0.1)(x))))
    draw_normalizations(model)
    folded = fold_batchnorm(model)
    assert kinds(folded) == [kind for kind in kinds(model) if kind != "BatchNormalization"]
    assert_equal_outputs(model, folded, atol=1e-3)  # of outputs in the hundreds


@pytest.mark.parametrize("behind", ["ReLU", "Concatenate", "nothing", "Dense of a sequence"])
def test_one_of_features_that_no_dense_layer_takes_becomes_a_convolution(behind: str) -> None:
    keras = import_keras()
    image = keras.Input((8, 8, 3))
    shape = (8, 24) if behind == "Dense of a sequence" else (192,)
    x = keras.layers.BatchNormalization(name="alone")(keras.layers.Reshape(shape)(image))
    y = {
        "ReLU": lambda: keras.layers.Dense(4)(keras.layers.ReLU()(x)),
        "Concatenate": lambda: keras.layers.Concatenate()([keras.layers.Dense(4)(x), x]),
        "nothing": lambda: x,
        "Dense of a sequence": lambda: keras.layers.Dense(4)(x),
    }[behind]()
    model = keras.Model(image, y)
    draw_normalizations(model)
    folded = fold_batchnorm(model)
    assert kinds(folded)[2:5] == ["Reshape", "DepthwiseConv2D", "Reshape"]
    assert_equal_outputs(model, folded, atol=1e-3)
