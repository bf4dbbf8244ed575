"""A model without BatchNormalization answers as the one with it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from lesiontk.compress.batchnorm_folding import fold_batchnorm
from lesiontk.compress.keras_layers import read_layers
from lesiontk.errors import DataError
from lesiontk.frameworks import import_keras
from lesiontk.models import ARCHITECTURES
from lesiontk.models.architecture import build_model

from .random_models import build_random_model
from .test_channel_graph import assert_equal_outputs


def kinds(model: Any) -> list[str]:
    return [layer.kind for layer in read_layers(model)]


@pytest.mark.parametrize("seed", range(15))
def test_the_outputs_stay(seed: int) -> None:
    model = build_random_model(seed)
    folded = fold_batchnorm(model)
    assert "BatchNormalization" not in kinds(folded)
    assert_equal_outputs(model, folded)


@pytest.mark.slow
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_registered_architecture_is_folded(name: str) -> None:
    model = build_model(ARCHITECTURES.get(name), image_size=32, classes=7)
    generator = np.random.default_rng(2)
    for layer in model.layers:
        if isinstance(layer, import_keras().layers.BatchNormalization):
            layer.set_weights(
                [w * generator.uniform(0.8, 1.2, w.shape) for w in layer.get_weights()]
            )
    folded = fold_batchnorm(model)
    assert "BatchNormalization" not in kinds(folded)
    assert_equal_outputs(model, folded, atol=1e-4)
    replaced = kinds(folded).count("DepthwiseConv2D") - kinds(model).count("DepthwiseConv2D")
    assert (replaced > 0) == (name == "resnet152v2")  # its normalisations stand before


def test_a_normalisation_alone_becomes_a_convolution() -> None:
    keras = import_keras()
    image = keras.Input((8, 8, 3), name="image")
    x = keras.layers.BatchNormalization(name="alone")(image)
    model = keras.Model(image, keras.layers.ReLU()(x))
    rng = np.random.default_rng(1)
    model.get_layer("alone").set_weights([rng.uniform(0.5, 2, 3) for _ in range(4)])
    folded = fold_batchnorm(model)
    assert kinds(folded) == ["InputLayer", "DepthwiseConv2D", "ReLU"]
    assert_equal_outputs(model, folded, atol=1e-3)


def test_one_that_can_be_neither_is_named() -> None:
    keras = import_keras()
    image = keras.Input((8, 8, 3))
    x = keras.layers.GlobalAveragePooling2D()(image)
    model = keras.Model(image, keras.layers.BatchNormalization(name="lost")(x))
    with pytest.raises(DataError, match=r"layer 'lost'.* stands behind no linear layer"):
        fold_batchnorm(model)
