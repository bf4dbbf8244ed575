"""Channels that are zero can be removed and nothing changes; what is tied goes together."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from lesiontk.compress.channel_graph import ChannelGraph, derive_channels
from lesiontk.compress.keras_layers import read_layers, remove_channels
from lesiontk.compress.layers import Layer, count_macs, count_weights
from lesiontk.errors import DataError
from lesiontk.frameworks import import_keras
from lesiontk.models import ARCHITECTURES
from lesiontk.models.architecture import build_model

from .random_models import build_random_model


def silence(model: Any, graph: ChannelGraph, channels: frozenset[int]) -> None:
    """Make every value of these channels zero, wherever they are made or shifted."""
    for layer in graph.layers:
        keras_layer = model.get_layer(layer.name)
        weights = keras_layer.get_weights()
        if not weights:
            continue
        lost = np.isin(graph.outputs[layer.name], list(channels))
        if layer.kind == "BatchNormalization":
            gamma, beta, *rest = weights
            gamma[lost], beta[lost] = 0, 0
            keras_layer.set_weights([gamma, beta, *rest])
        elif layer.kind == "DepthwiseConv2D":
            kernel, *bias = weights
            for values in bias:
                values[lost] = 0
            keras_layer.set_weights([kernel, *bias])
        else:
            weights[-2 if layer.has_bias else -1][..., lost] = 0
            if layer.has_bias:
                weights[-1][lost] = 0
            keras_layer.set_weights(weights)


def draw_channels(graph: ChannelGraph, seed: int, share: float = 0.4) -> frozenset[int]:
    """Channels to remove, of each family all but one at most."""
    generator = np.random.default_rng(seed)
    drawn: set[int] = set()
    for family in graph.families():
        count = min(len(family) - 1, int(share * len(family) + generator.random()))
        drawn |= {int(channel) for channel in generator.permutation(family)[:count]}
    return frozenset(drawn)


def pictures(model: Any, count: int = 4) -> Any:
    shape = (count, *model.input_shape[1:])
    return np.random.default_rng(1).uniform(0, 255, shape).astype(np.float32)


def assert_equal_outputs(model: Any, smaller: Any, atol: float = 1e-5) -> None:
    x = pictures(model)
    np.testing.assert_allclose(np.asarray(smaller(x)), np.asarray(model(x)), atol=atol)


@pytest.mark.parametrize("seed", range(40))
def test_removing_silent_channels_changes_nothing(seed: int) -> None:
    model = build_random_model(seed)
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


@pytest.mark.slow
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_registered_architecture_is_understood(name: str) -> None:
    model = build_model(ARCHITECTURES.get(name), image_size=32, classes=7)
    graph = derive_channels(read_layers(model))
    removed = draw_channels(graph, 5, share=0.5)
    silence(model, graph, removed)
    smaller = remove_channels(model, graph, removed)
    assert_equal_outputs(model, smaller, atol=1e-4)
    assert smaller.count_params() < 0.5 * model.count_params()
    kept = {layer.name: layer for layer in read_layers(smaller)}
    assert kept["logits"].channels == 7
    assert kept["image"].channels == 3


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
    with pytest.raises(DataError, match=r"'centre' \(LayerNormalization\) is not understood"):
        read_layers(model)


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
        DataError, match=r"layer 'mix' \(Reshape\) turns \[4, 4, 6\] into \[8, 12\]"
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
