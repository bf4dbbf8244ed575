"""On networks whose evidence is known: the place, the layer, and the classical special case."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from lesiontk.errors import UsageError
from lesiontk.explain.grad_cam import upsample_maps
from lesiontk.explain.keras_grad_cam import BATCH, GradCAM, find_spatial_layer
from lesiontk.models.architecture import Architecture, Normalization, build_model
from lesiontk.system.frameworks import import_keras

SIZE = 16
RED, GREEN = 0, 1


def build(body: Callable[[Any], Any], *, size: int = SIZE, classes: int = 2) -> Any:
    import_keras().utils.set_random_seed(4)
    architecture = Architecture("made_up", 8, Normalization(1 / 255, (0.0,) * 3), body)
    return build_model(architecture, image_size=size, classes=classes, dropout=0.3)


def convolve(x: Any, width: int = 4, strides: int = 1, name: str = "conv") -> Any:
    layer = import_keras().layers.Conv2D(width, 3, strides, padding="same", name=name)
    return layer(x)


def colour_detector() -> Any:
    """A network for which what is red speaks for class 0, what is green for class 1."""
    model = build(lambda x: import_keras().layers.Conv2D(2, 1, name="conv")(x))
    kernel = np.zeros((1, 1, 3, 2))
    kernel[0, 0, RED, 0] = kernel[0, 0, GREEN, 1] = 1
    model.get_layer("conv").set_weights([kernel, np.zeros(2)])
    model.get_layer("logits").set_weights([np.eye(2), np.zeros(2)])
    return model


def draw_corners(red: tuple[int, int], green: tuple[int, int]) -> NDArray[np.uint8]:
    """One black picture with a red and a green corner; a corner is (0 or 1, 0 or 1)."""
    pixels = np.zeros((1, SIZE, SIZE, 3), np.uint8)
    half = SIZE // 2
    for colour, (row, column) in ((RED, red), (GREEN, green)):
        pixels[0, row * half :, column * half :, colour][:half, :half] = 255
    return pixels


def corner_of_peak(heatmap: NDArray[np.float32]) -> tuple[int, int]:
    row, column = np.unravel_index(heatmap.argmax(), heatmap.shape)
    return int(row >= SIZE // 2), int(column >= SIZE // 2)


# ----------------------------------------------------------------------- place


@pytest.mark.parametrize(
    ("red", "green"), [((0, 0), (1, 1)), ((1, 1), (0, 0)), ((0, 1), (1, 0)), ((1, 0), (0, 1))]
)
def test_the_heatmap_of_a_class_lies_where_its_evidence_is(
    red: tuple[int, int], green: tuple[int, int]
) -> None:
    network, pixels = GradCAM(colour_detector()), draw_corners(red, green)
    for label, corner in enumerate((red, green)):
        (heatmap,) = network.explain(pixels, np.array([label]))
        assert corner_of_peak(heatmap) == corner
        assert heatmap[SIZE // 4 + 8 * (1 - corner[0]), SIZE // 4 + 8 * (1 - corner[1])] < 0.2


def test_evidence_against_a_class_is_not_shown() -> None:
    model = colour_detector()
    kernel, bias = model.get_layer("logits").get_weights()
    model.get_layer("logits").set_weights([-kernel, bias])
    heatmaps = GradCAM(model).explain(draw_corners((0, 0), (1, 1)), np.array([0]))
    assert not heatmaps.any()


def test_every_image_is_explained_for_the_class_given_for_it() -> None:
    network = GradCAM(colour_detector())
    count = BATCH + 3  # more than one batch, the last not full
    pixels = np.repeat(draw_corners((0, 0), (1, 1)), count, axis=0)
    classes = np.arange(count) % 2
    heatmaps = network.explain(pixels, classes)
    assert heatmaps.shape == (count, SIZE, SIZE)
    assert [corner_of_peak(h) for h in heatmaps] == [(label, label) for label in classes]


def test_no_image_gives_no_heatmap() -> None:
    network = GradCAM(colour_detector())
    received = network.explain(np.zeros((0, SIZE, SIZE, 3), np.uint8), np.zeros(0, np.int64))
    assert received.shape == (0, SIZE, SIZE)


# --------------------------------------------------------------------- formula


def test_with_pooling_and_one_dense_layer_it_is_the_class_activation_map() -> None:
    """Selvaraju et al., section 3.1: there the weights of the dense layer, over h w, are alpha."""
    keras = import_keras()
    model = build(lambda x: keras.layers.ReLU(name="relu")(convolve(x, 6, 2)), classes=3)
    pixels = np.random.default_rng(1).integers(0, 255, (4, SIZE, SIZE, 3)).astype(np.uint8)
    classes = np.array([0, 1, 2, 1])
    features = keras.Model(model.input, model.get_layer("relu").output)(pixels.astype(np.float32))
    kernel, bias = model.get_layer("logits").get_weights()
    kernel = np.abs(kernel)  # every map has evidence for its class
    model.get_layer("logits").set_weights([kernel, bias])
    maps = np.maximum(np.einsum("nhwk,kn->nhw", np.asarray(features), kernel[:, classes]), 0)
    expected = upsample_maps(maps, SIZE)
    expected /= expected.max(axis=(1, 2), keepdims=True)
    network = GradCAM(model)
    np.testing.assert_allclose(network.explain(pixels, classes), expected, atol=1e-5)
    assert np.abs(network.explain(pixels, (classes + 1) % 3) - expected).max() > 0.1


def test_it_is_the_logit_that_is_explained_and_not_the_probability() -> None:
    """Where the network is sure its probabilities do not move any more; its logits do."""
    model = colour_detector()
    model.get_layer("logits").set_weights([1e6 * np.eye(2), np.zeros(2)])
    heatmaps = GradCAM(model).explain(draw_corners((0, 1), (1, 0)), np.array([0]))
    assert corner_of_peak(heatmaps[0]) == (0, 1)


def test_frozen_weights_and_bfloat16_make_no_difference() -> None:
    frozen = colour_detector()
    frozen.trainable = False
    pixels, classes = draw_corners((0, 1), (1, 0)), np.array([1])
    expected = GradCAM(colour_detector()).explain(pixels, classes)
    np.testing.assert_array_equal(GradCAM(frozen).explain(pixels, classes), expected)
    keras = import_keras()
    keras.mixed_precision.set_global_policy("mixed_bfloat16")
    try:
        half = colour_detector()
    finally:
        keras.mixed_precision.set_global_policy("float32")
    received = GradCAM(half).explain(pixels, classes)
    assert received.dtype == np.float32
    np.testing.assert_allclose(received, expected, atol=0.02)


# ----------------------------------------------------------------------- layer


def with_branches(x: Any) -> Any:
    layers = import_keras().layers
    x = convolve(x, strides=2, name="stem")
    branches = [convolve(x, name="left"), convolve(x, name="right")]
    return layers.Concatenate(name="both")(branches)


def with_shortcut(x: Any) -> Any:
    layers = import_keras().layers
    x = convolve(x, strides=2, name="stem")
    return layers.Add(name="sum")([x, convolve(x, name="branch")])


def with_branches_that_pool_to_one_cell(x: Any) -> Any:
    layers = import_keras().layers
    x = convolve(x, strides=2, name="stem")
    left = layers.MaxPooling2D(8)(convolve(x, name="left"))
    return layers.Add()([left, convolve(x, strides=8, name="right")])


def with_a_network_inside(x: Any) -> Any:
    keras = import_keras()
    inside = keras.Input(x.shape[1:])
    return keras.Model(inside, convolve(inside, strides=2), name="inside")(x)


def with_max_pooling_at_the_end(x: Any) -> Any:
    return import_keras().layers.MaxPooling2D()(convolve(x, name="last"))


def with_dense_layers(x: Any) -> Any:
    layers = import_keras().layers
    x = layers.GlobalAveragePooling2D()(convolve(x, name="last"))
    return layers.Dense(5, activation="relu")(x)


def with_flattening(x: Any) -> Any:
    return import_keras().layers.Flatten()(convolve(x, strides=4, name="last"))


def with_convolutions_after_pooling(x: Any) -> Any:
    layers = import_keras().layers
    x = layers.GlobalAveragePooling2D(keepdims=True)(convolve(x, name="last"))
    return layers.Conv2D(5, 1)(x)


@pytest.mark.parametrize(
    ("body", "layer"),
    [
        (convolve, "conv"),
        (with_branches, "both"),
        (with_shortcut, "sum"),
        (with_branches_that_pool_to_one_cell, "stem"),
        (with_a_network_inside, "inside"),
        (with_max_pooling_at_the_end, "last"),
        (with_dense_layers, "last"),
        (with_flattening, "last"),
        (with_convolutions_after_pooling, "last"),
    ],
)
def test_the_last_map_that_all_evidence_passes_through_is_taken(
    body: Callable[[Any], Any], layer: str
) -> None:
    model = build(body)
    assert find_spatial_layer(model).name == layer
    network = GradCAM(model)
    assert network.layer == layer
    assert network.grid == tuple(model.get_layer(layer).output_shape[1:3])
    pixels = np.random.default_rng(2).integers(0, 255, (2, SIZE, SIZE, 3)).astype(np.uint8)
    assert np.isfinite(network.explain(pixels, np.array([0, 1]))).all()


@pytest.mark.parametrize(
    "body",
    [
        lambda x: import_keras().layers.Flatten()(x),
        lambda x: import_keras().layers.GlobalAveragePooling2D()(x),
        lambda x: convolve(x, strides=SIZE),
    ],
    ids=["pixels flattened", "pixels pooled", "one cell"],
)
def test_a_model_without_a_map_is_refused_by_its_name(body: Callable[[Any], Any]) -> None:
    with pytest.raises(UsageError, match=r"made_up has no layer .* explain\.images=0"):
        GradCAM(build(body))
