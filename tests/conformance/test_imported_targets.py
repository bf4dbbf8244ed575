"""Layers that users have and no network here has go through every target."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from lesiontk.backends import BACKENDS
from lesiontk.system.frameworks import import_keras
from tests.conformance.fitted_models import SPEC, PlainChain, draw_pictures

PICTURES = draw_pictures(28, 32, 7, seed=1)[0]
TARGETS = {
    "tflite:float32": 1e-4,
    "tflite:float16": 0.02,
    "tflite:int8": 0.1,
    "onnx:float32": 1e-4,
    "onnx:float16": 0.02,
    "onnx:int8": 0.1,
}
"""Target -> how far a probability may be from the model's."""


def build() -> Any:
    """Side by side, so that each has part in the answer."""
    keras = import_keras()
    k = keras.layers
    keras.utils.set_random_seed(1)
    image = keras.Input((32, 32, 3), name="image")
    x = k.Rescaling(1 / 128, -1.0, name="normalisation")(image)
    x = k.Conv2D(8, 3, 4, name="stem")(x)
    gate = k.Rescaling(1 / 6)(k.ReLU(6.0)(k.Rescaling(1.0, 3.0)(x)))
    branches = [
        k.Multiply()([x, gate]),
        k.Conv2D(8, 3, groups=2, padding="same")(x),
        k.Activation("selu")(x),
        k.ELU(0.5)(x),
        k.LeakyReLU(0.2)(x),
        k.PReLU("random_uniform", shared_axes=[1, 2])(x),
        k.Conv2D(8, 3, padding="same")(k.Activation("swish")(x)),
        k.AveragePooling2D(2)(k.UpSampling2D(2)(x)),
    ]
    pooled = [k.GlobalAveragePooling2D(keepdims=True)(branch) for branch in branches]
    x = k.Flatten()(k.Concatenate()(pooled))
    x = k.Dense(7, name="logits")(x)
    return keras.Model(image, k.Softmax(name="probabilities")(x))


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> tuple[PlainChain, Any]:
    model = build()
    made = PlainChain(model, SPEC, tmp_path_factory.mktemp("imported"), PICTURES)
    return made, np.asarray(model(PICTURES.astype(np.float32), training=False))


@pytest.mark.parametrize("target", TARGETS)
def test_layers_of_users_go_through_every_target(
    target: str, chain: tuple[PlainChain, Any]
) -> None:
    engines, expected = chain
    with BACKENDS.get(target.partition(":")[0])().open(engines.convert(target)) as engine:
        received = engine.predict(PICTURES)
    assert np.ptp(expected, axis=0).max() > 0.05
    np.testing.assert_allclose(received, expected, atol=TARGETS[target])
