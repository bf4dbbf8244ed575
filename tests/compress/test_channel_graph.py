"""Channels that are zero can be removed and nothing changes; what is tied goes together."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from lesiontk.compress.channel_graph import derive_channels
from lesiontk.compress.keras_layers import read_layers, remove_channels
from lesiontk.compress.layers import Layer, count_macs, count_weights
from lesiontk.errors import DataError
from lesiontk.system.frameworks import import_keras, import_tensorflow
from tests.compress.equal_outputs import assert_equal_outputs
from tests.compress.random_models import build_random_model, list_seeds
from tests.compress.silent_channels import draw_channels, silence


@pytest.mark.parametrize("unusual", [False, True], ids=["usual", "unusual"])
@pytest.mark.parametrize("seed", list_seeds(40))
def test_removing_silent_channels_changes_nothing(seed: int, unusual: bool) -> None:
    model = build_random_model(seed, unusual=unusual)
    graph = derive_channels(read_layers(model))
    removed = draw_channels(graph, seed)
    silence(model, graph, removed)
    smaller = remove_channels(model, graph, removed)
    assert_equal_outputs(model, smaller)
    if removed:
        assert smaller.count_params() < model.count_params()
    again = read_layers(smaller)
    assert again == graph.narrow(removed)  # shapes, counts, all


def test_removing_channels_that_speak_changes_the_output() -> None:
    """The twin: without silencing, the comparison fails."""
    model = build_random_model(3)
    graph = derive_channels(read_layers(model))
    smaller = remove_channels(model, graph, draw_channels(graph, 3))
    with pytest.raises(AssertionError, match="Not equal to tolerance"):
        assert_equal_outputs(model, smaller)


def test_counts_are_those_of_keras() -> None:
    for seed in range(8):
        model = build_random_model(seed)
        weights = count_weights(read_layers(model))
        assert sum(weights.values()) == model.count_params()


def test_macs_of_a_known_network() -> None:
    layers = [
        Layer("image", "InputLayer", (), (8, 8, 3)),
        Layer("conv", "Conv2D", ("image",), (4, 4, 10), (3, 3)),
        Layer("deep", "DepthwiseConv2D", ("conv",), (4, 4, 20), (3, 3), 10, 2),
        Layer("split", "SeparableConv2D", ("deep",), (4, 4, 5), (3, 3)),
        Layer("flat", "Flatten", ("split",), (80,)),
        Layer("logits", "Dense", ("flat",), (2,), has_bias=True),
    ]
    assert count_macs(layers) == {
        "conv": 16 * 9 * 3 * 10,
        "deep": 16 * 9 * 20,
        "split": 16 * 20 * (9 + 5),
        "logits": 160,
    }


def test_what_an_addition_joins_is_tied() -> None:
    layers = [
        Layer("image", "InputLayer", (), (4, 4, 3)),
        Layer("a", "Conv2D", ("image",), (4, 4, 6)),
        Layer("b", "Conv2D", ("image",), (4, 4, 6)),
        Layer("sum", "Add", ("a", "b"), (4, 4, 6)),
        Layer("c", "Conv2D", ("sum",), (4, 4, 5)),
        Layer("both", "Concatenate", ("sum", "c"), (4, 4, 11)),
        Layer("pool", "GlobalAveragePooling2D", ("both",), (11,)),
        Layer("logits", "Dense", ("pool",), (2,)),
    ]
    graph = derive_channels(layers)
    producers = graph.producers()
    assert sorted(map(len, graph.families())) == [5, 6]
    for index, channel in enumerate(graph.outputs["sum"]):
        assert producers[int(channel)] == (("a", index), ("b", index))
    removed = frozenset({int(graph.outputs["a"][2]), int(graph.outputs["c"][0])})
    narrowed = {layer.name: layer.channels for layer in graph.narrow(removed)}
    assert narrowed == {
        "image": 3, "a": 5, "b": 5, "sum": 5, "c": 4, "both": 9, "pool": 9, "logits": 2,
    }  # fmt: skip
    assert graph.keep_inputs("logits", removed)[0].tolist() == [0, 1, 3, 4, 5, 7, 8, 9, 10]


def test_fixed_channels_and_last_ones_stay() -> None:
    layers = [
        Layer("image", "InputLayer", (), (4, 4, 3)),
        Layer("a", "Conv2D", ("image",), (4, 4, 2)),
        Layer("pool", "GlobalAveragePooling2D", ("a",), (2,)),
        Layer("logits", "Dense", ("pool",), (2,)),
    ]
    graph = derive_channels(layers)
    assert {int(c) for c in graph.outputs["image"]} | {int(c) for c in graph.outputs["logits"]} == (
        set(graph.fixed)
    )
    with pytest.raises(DataError, match="are fixed"):
        graph.narrow(frozenset({int(graph.outputs["logits"][0])}))
    with pytest.raises(DataError, match="layer 'a' would lose its last channel"):
        graph.narrow(frozenset(int(c) for c in graph.outputs["a"]))


def test_a_layer_that_is_not_understood_is_named() -> None:
    keras = import_keras()
    image = keras.Input((8, 8, 3))
    x = keras.layers.LayerNormalization(name="centre")(keras.layers.Conv2D(4, 3)(image))
    model = keras.Model(image, keras.layers.Flatten()(x))
    with pytest.raises(DataError, match=r"'centre' \(LayerNormalization\) is not supported"):
        read_layers(model)


def build_around(make: Callable[[Any, Any], Any]) -> Any:
    """A convolution of six channels, what `make` puts behind it, logits."""
    keras = import_keras()
    image = keras.Input((8, 8, 3))
    x = make(keras.layers, keras.layers.Conv2D(6, 3, name="conv")(image))
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(image, keras.layers.Dense(3, name="logits")(x))


@pytest.mark.parametrize(
    "make",
    [
        lambda layers, x: layers.Activation("softmax")(x),
        lambda layers, x: layers.Conv2D(5, 1, activation="softmax")(x),
        lambda layers, x: layers.Dense(5, activation="softmax")(x),
        lambda layers, x: layers.DepthwiseConv2D(1, activation="softmax")(x),
    ],
)
def test_a_softmax_within_the_network_keeps_its_channels(make: Callable[[Any, Any], Any]) -> None:
    model = build_around(make)
    layers = read_layers(model)
    graph = derive_channels(layers)
    (mixing,) = [layer for layer in layers if layer.mixes_channels]
    assert {int(channel) for channel in graph.outputs[mixing.name]} <= graph.fixed
    removed = draw_channels(graph, 1, share=0.5)
    silence(model, graph, removed)
    assert_equal_outputs(model, remove_channels(model, graph, removed))


def test_a_factor_for_each_channel_goes_with_its_channel() -> None:
    factors = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
    model = build_around(lambda layers, x: layers.Rescaling(factors, name="scaled")(x))
    graph = derive_channels(read_layers(model))
    removed = frozenset(int(graph.outputs["conv"][index]) for index in (0, 4))
    silence(model, graph, removed)
    smaller = remove_channels(model, graph, removed)
    assert smaller.get_layer("scaled").scale == [2, 3, 4, 6]
    assert_equal_outputs(model, smaller)
    mixed = build_around(lambda layers, x: layers.Rescaling(np.ones((6, 1)), name="scaled")(x))
    with pytest.raises(DataError, match=r"layer 'scaled' \(Rescaling\) has the scale \(6, 1\)"):
        read_layers(mixed)


def centre(x: Any) -> Any:
    """An activation that mixes channels."""
    return x - import_tensorflow().reduce_mean(x, axis=-1, keepdims=True)


def relu(x: Any) -> Any:
    """One that has the name of another."""
    return centre(x)


@pytest.mark.parametrize(
    ("function", "told"), [(centre, "centre"), (relu, r"\S+test_channel_graph\.relu")]
)
def test_an_activation_of_ones_own_is_named(function: Any, told: str) -> None:
    model = build_around(lambda layers, x: layers.Activation(function, name="own")(x))
    with pytest.raises(DataError, match=rf"layer 'own' \(Activation\) has the activation {told},"):
        read_layers(model)


def test_a_layer_of_ones_own_is_named_whatever_its_class_is_called() -> None:
    class Conv2D(import_keras().layers.Layer):  # type: ignore[misc]
        def call(self, inputs: Any) -> Any:
            return centre(inputs)

    model = build_around(lambda layers, x: Conv2D(name="own")(x))
    with pytest.raises(DataError, match=r"layer 'own' \(\S+\.Conv2D\) is not supported"):
        read_layers(model)


def test_a_model_of_several_outputs_is_refused() -> None:
    keras = import_keras()
    image = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(4, 3, name="features")(image)
    logits = keras.layers.Dense(2, name="logits")(keras.layers.Flatten()(x))
    with pytest.raises(DataError, match="has 2 outputs, of the layers logits, features"):
        read_layers(keras.Model(image, [logits, x]))


def test_a_sequential_model_is_refused_with_the_way_to_mend_it() -> None:
    keras = import_keras()
    model = keras.Sequential([keras.layers.Dense(4, input_shape=(3,)), keras.layers.Dense(2)])
    with pytest.raises(DataError, match=r"is a Sequential; expected .*Model\(model\.inputs"):
        read_layers(model)
    assert len(read_layers(keras.Model(model.inputs, model.outputs))) == 3


def test_what_nobody_reads_is_an_output_and_stays() -> None:
    layers = [
        Layer("image", "InputLayer", (), (4, 4, 3)),
        Layer("one", "Conv2D", ("image",), (4, 4, 4)),
        Layer("other", "Conv2D", ("image",), (4, 4, 2)),
    ]
    assert derive_channels(layers).families() == ()


def test_a_layer_that_is_used_twice_is_named() -> None:
    keras = import_keras()
    image = keras.Input((8, 8, 4))
    shared = keras.layers.Conv2D(4, 3, padding="same", name="shared")
    model = keras.Model(image, shared(shared(image)))
    with pytest.raises(DataError, match="layer 'shared' is used 2 times"):
        read_layers(model)


def test_a_reshape_that_mixes_channels_is_named() -> None:
    layers = [
        Layer("image", "InputLayer", (), (4, 4, 3)),
        Layer("a", "Conv2D", ("image",), (4, 4, 6)),
    ]
    with pytest.raises(
        DataError, match=r"layer 'mix' \(Reshape\) reshapes \[4, 4, 6\] to \[8, 12\]"
    ):
        derive_channels([*layers, Layer("mix", "Reshape", ("a",), (8, 12))])


def test_a_grouped_convolution_keeps_its_channels() -> None:
    layers = [
        Layer("image", "InputLayer", (), (4, 4, 3)),
        Layer("a", "Conv2D", ("image",), (4, 4, 6)),
        Layer("g", "Conv2D", ("a",), (4, 4, 4), groups=2),
        Layer("b", "Conv2D", ("g",), (4, 4, 5)),
        Layer("pool", "GlobalAveragePooling2D", ("b",), (5,)),
        Layer("logits", "Dense", ("pool",), (2,)),
    ]
    graph = derive_channels(layers)
    assert [len(family) for family in graph.families()] == [5]
