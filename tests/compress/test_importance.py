"""The criteria, in cases whose answer is known."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from lesiontk.compress.channel_budget import choose_channels, macs_of
from lesiontk.compress.channel_graph import derive_channels
from lesiontk.compress.channel_statistics import collect_channel_statistics, follow_chains
from lesiontk.compress.importance import CRITERIA, ChannelStatistics, score_channels
from lesiontk.compress.keras_layers import read_layers
from lesiontk.errors import DataError
from lesiontk.system.frameworks import import_keras
from tests.compress.random_models import build_random_model
from tests.compress.small_models import build_model


def kernel(*filters: list[float]) -> Any:
    """Filters as columns, [weights, C]."""
    return np.array(filters, np.float32).T


def test_lengths_of_filters() -> None:
    channel_statistics = ChannelStatistics("a", kernel([3, -4], [0, 0], [1, 1]))
    assert CRITERIA.get("l1")(channel_statistics).tolist() == [7, 0, 2]
    np.testing.assert_allclose(CRITERIA.get("l2")(channel_statistics), [5, 0, 2**0.5])


def test_the_filter_in_the_middle_can_be_replaced() -> None:
    channel_statistics = ChannelStatistics("a", kernel([0, 0], [10, 0], [0, 10], [3, 3]))
    scores = CRITERIA.get("geometric_median")(channel_statistics)
    assert scores.argmin() == 3
    np.testing.assert_allclose(scores[0], 20 + 18**0.5)


def test_a_filter_far_from_zero_may_be_nearest_to_the_others() -> None:
    """What the geometric median sees and a length does not."""
    channel_statistics = ChannelStatistics("a", kernel([10, 0], [10, 1], [10, -1], [0, 0.1]))
    assert CRITERIA.get("l2")(channel_statistics).argmin() == 3
    assert CRITERIA.get("geometric_median")(channel_statistics).argmin() == 0


def test_what_a_criterion_lacks_is_named() -> None:
    bare = ChannelStatistics("block_conv", kernel([1, 2]))
    assert CRITERIA.get("batchnorm_scale")(bare) is None
    with pytest.raises(DataError, match="needs calibration images"):
        CRITERIA.get("taylor")(bare)


def test_taylor_finds_the_channel_that_is_read() -> None:
    model = build_model()
    layers = read_layers(model)
    images = np.random.default_rng(2).integers(0, 256, (20, 8, 8, 3)).astype(np.uint8)
    channel_statistics = collect_channel_statistics(model, layers, images, np.arange(20) % 2)
    scores = CRITERIA.get("taylor")(channel_statistics["conv"])
    assert scores[0] > 0
    assert (scores[1:] < 1e-6).all()
    assert CRITERIA.get("batchnorm_scale")(channel_statistics["conv"]).tolist() == [0.5, 3, 2, 1]
    assert follow_chains(layers) == {"conv": ("conv", "norm", "relu")}


def test_taylor_predicts_what_a_small_change_of_a_channel_does() -> None:
    """activation * gradient is the derivative of the loss by a factor on the channel."""
    model = build_model()
    layers = read_layers(model)
    image = np.random.default_rng(3).integers(0, 256, (1, 8, 8, 3)).astype(np.uint8)
    found = collect_channel_statistics(model, layers, image, np.array([1]))["conv"].taylor

    def loss(factor: float) -> float:
        gamma, beta, mean, variance = model.get_layer("norm").get_weights()
        changed = [gamma.copy(), beta.copy()]
        for values in changed:
            values[0] *= factor  # ReLU lets a factor through
        model.get_layer("norm").set_weights([*changed, mean, variance])
        value = -np.log(np.asarray(model(image.astype(np.float32)))[0, 1])
        model.get_layer("norm").set_weights([gamma, beta, mean, variance])
        return float(value)

    slope = (loss(1.01) - loss(0.99)) / 0.02
    assert found is not None
    assert found[0] == pytest.approx(abs(slope), rel=0.02)


def test_tied_channels_are_worth_the_sum_of_their_parts() -> None:
    keras = import_keras()
    layers = keras.layers
    image = keras.Input((4, 4, 3))
    a = layers.Conv2D(3, 1, use_bias=False, name="a")(image)
    b = layers.Conv2D(3, 1, use_bias=False, name="b")(image)
    x = layers.GlobalAveragePooling2D()(layers.Add(name="sum")([a, b]))
    model = keras.Model(image, layers.Softmax()(layers.Dense(2, name="logits")(x)))
    for name, lengths in (("a", (1, 1, 2)), ("b", (5, 1, 1))):
        weights = np.zeros((1, 1, 3, 3), np.float32)
        weights[0, 0, 0] = lengths
        model.get_layer(name).set_weights([weights])
    graph = derive_channels(read_layers(model))
    scores = score_channels(graph, collect_channel_statistics(model, graph.layers), "l2")
    ordered = [scores[int(channel)] for channel in graph.outputs["sum"]]
    expected = np.array([1, 1, 2]) / 2**0.5 + np.array([5, 1, 1]) / 3
    np.testing.assert_allclose(ordered, expected)


def build_mixed(*, normalized: bool) -> Any:
    """A convolution with normalization, if wanted, and a dense layer without."""
    keras = import_keras()
    layers = keras.layers
    image = keras.Input((4, 4, 3))
    x = layers.Conv2D(16, 1, name="conv")(image)
    x = layers.BatchNormalization()(x) if normalized else x
    x = layers.Dense(16, name="dense")(layers.GlobalAveragePooling2D()(x))
    return keras.Model(image, layers.Softmax()(layers.Dense(2, name="logits")(x)))


def test_what_has_no_scale_keeps_its_channels() -> None:
    model = build_mixed(normalized=True)
    graph = derive_channels(read_layers(model))
    scores = score_channels(
        graph, collect_channel_statistics(model, graph.layers), "batchnorm_scale"
    )
    assert set(scores) == {int(channel) for channel in graph.outputs["conv"]}
    removed = choose_channels(graph, scores, 0.7 * macs_of(graph.layers))
    widths = {layer.name: layer.channels for layer in graph.narrow(removed)}
    assert widths["conv"] == 8
    assert widths["dense"] == 16


def test_a_model_without_any_scale_is_refused_with_the_reason() -> None:
    model = build_mixed(normalized=False)
    graph = derive_channels(read_layers(model))
    with pytest.raises(DataError, match=r"none of the layers conv, dense .*BatchNormalization"):
        score_channels(graph, collect_channel_statistics(model, graph.layers), "batchnorm_scale")


@pytest.mark.parametrize("criterion", CRITERIA)
def test_every_criterion_scores_every_channel(criterion: str) -> None:
    model = build_model()
    graph = derive_channels(read_layers(model))
    images = np.random.default_rng(2).integers(0, 256, (8, 8, 8, 3)).astype(np.uint8)
    channel_statistics = collect_channel_statistics(model, graph.layers, images, np.arange(8) % 2)
    scores = score_channels(graph, channel_statistics, criterion)
    assert set(scores) == set(graph.producers())
    assert all(np.isfinite(score) and score >= 0 for score in scores.values())


def test_evidence_is_found_in_any_model() -> None:
    images = np.random.default_rng(2).integers(0, 256, (4, 12, 12, 3)).astype(np.uint8)
    for seed in range(5):
        model = build_random_model(seed)
        graph = derive_channels(read_layers(model))
        channel_statistics = collect_channel_statistics(
            model, graph.layers, images, np.arange(4) % 3
        )
        assert set(score_channels(graph, channel_statistics, "taylor")) == set(graph.producers())
