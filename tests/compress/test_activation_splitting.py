"""What is rounded before an activation is a layer's output; the model answers alike."""

from __future__ import annotations

from lesiontk.compress.activation_splitting import split_activations
from lesiontk.compress.keras_layers import read_layers
from lesiontk.system.frameworks import import_keras
from tests.compress.equal_outputs import assert_equal_outputs


def test_an_activation_within_a_layer_becomes_one_behind_it_and_relu_stays() -> None:
    keras = import_keras()
    image = keras.Input((8, 8, 3), name="image")
    x = keras.layers.Rescaling(1 / 255, name="normalisation")(image)
    x = keras.layers.Conv2D(4, 3, activation="relu", name="plain")(x)
    x = keras.layers.DepthwiseConv2D(3, activation="swish", name="curved")(x)
    x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    x = keras.layers.Dense(5, activation="tanh", name="flat")(x)
    model = keras.Model(image, keras.layers.Dense(3, activation="softmax", name="said")(x))
    split = split_activations(model)
    assert [(layer.name, layer.activation) for layer in read_layers(split)][2:] == [
        ("plain", "relu"), ("curved", "linear"), ("curved_swish", "swish"), ("pool", "linear"),
        ("flat", "linear"), ("flat_tanh", "tanh"), ("said", "softmax"),
    ]  # fmt: skip
    assert_equal_outputs(model, split, atol=1e-6)


def test_a_model_without_one_stays_itself() -> None:
    keras = import_keras()
    image = keras.Input((8, 8, 3))
    model = keras.Model(image, keras.layers.Conv2D(4, 3, activation="relu")(image))
    assert split_activations(model) is model
