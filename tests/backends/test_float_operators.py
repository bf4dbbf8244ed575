"""What an int8 engine leaves in float has a reason, whatever the network is made of."""

from __future__ import annotations

from typing import Any

import pytest

from lesiontk.backends import BACKENDS
from lesiontk.system.frameworks import import_keras
from tests.conformance.fitted_models import SPEC, PlainChain, draw_pictures

INT8 = ("tflite:int8", "onnx:int8", "tensorrt:int8")


def build_unusual() -> Any:
    """Return a model with activations that no int8 engine, or not every one, has a form of."""
    keras = import_keras()
    keras.utils.set_random_seed(1)
    layers = keras.layers
    image = layers.Input((32, 32, 3), name="image")
    x = layers.Rescaling(1 / 128, -1.0, name="normalisation")(image)
    for name, activation in {
        "leaky": layers.LeakyReLU(),
        "hard": layers.Activation("hard_sigmoid"),
        "soft": layers.Activation("swish"),
        "curved": layers.Activation("tanh"),
    }.items():
        x = layers.MaxPooling2D(2)(activation(layers.Conv2D(8, 3, padding="same", name=name)(x)))
    x = layers.Dense(7, name="logits")(layers.GlobalAveragePooling2D()(x))
    return keras.Model(image, layers.Softmax(name="probabilities")(x))


@pytest.fixture(scope="module")
def unusual(tmp_path_factory: pytest.TempPathFactory) -> PlainChain:
    return PlainChain(
        build_unusual(),
        SPEC,
        tmp_path_factory.mktemp("unusual"),
        draw_pictures(8, 32, 7, seed=1)[0],
    )


@pytest.mark.parametrize("target", INT8)
def test_activations_without_an_int8_form_are_told_with_their_reason(
    target: str, unusual: PlainChain
) -> None:
    name, _, precision = target.partition(":")
    backend, path = BACKENDS.get(name)(), unusual.convert(target)
    left = backend.list_float_operators(path, precision)
    assert left == unusual.records[target].float_operators
    kinds = {operator.partition(" ")[0].lower().replace("_", "") for operator in left}
    assert {"leakyrelu", "softmax"} <= kinds
    assert not any(kind.startswith(("conv", "fully", "gemm", "mean", "global")) for kind in kinds)
    assert backend.list_unexplained(path, precision) == ()


@pytest.mark.parametrize(
    ("operator", "target"),
    [
        ("CONV_2D -> a", "tflite:int8"),
        ("DEPTHWISE_CONV_2D -> a", "tflite:int8"),
        ("TRANSPOSE_CONV -> a", "tflite:int8"),
        ("ADD -> a", "tflite:int16x8"),
        ("CONV_2D -> a", "tflite:dynamic_int8"),
        ("Conv a", "onnx:int8"),
        ("Concat a", "onnx:int8"),
        ("Conv a", "tensorrt:int8"),
        ("GlobalAveragePool a", "tensorrt:int8"),
    ],
)
def test_what_computes_in_integers_has_no_reason_to_stay_in_float(
    operator: str, target: str
) -> None:
    name, _, precision = target.partition(":")
    assert BACKENDS.get(name)().explain_float_operator(operator, precision) is None
