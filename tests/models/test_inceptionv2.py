"""Inception-v2 is the network of figure 5 of arXiv:1502.03167."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from lesiontk.models import ARCHITECTURES
from lesiontk.models.architecture import build_model
from lesiontk.system.frameworks import import_keras

# Of each row of the figure, at 224 px: the layer that ends it, its output's size and channels.
OUTPUTS = {
    "stem_7x7_relu": (112, 64),
    "stem_pool1": (56, 64),
    "stem_3x3_relu": (56, 192),
    "stem_pool2": (28, 192),
    "inception_3a_output": (28, 256),
    "inception_3b_output": (28, 320),
    "inception_3c_output": (14, 576),
    "inception_4a_output": (14, 576),
    "inception_4b_output": (14, 576),
    "inception_4c_output": (14, 576),
    "inception_4d_output": (14, 576),
    "inception_4e_output": (7, 1024),
    "inception_5a_output": (7, 1024),
    "inception_5b_output": (7, 1024),
    "pooling": (None, 1024),
}

# By hand from the figure: kernel weights, and channels that are normalized. For 3a, with 192
# channels in: 1x1 192*64; 3x3 192*64 + 9*64*64; double 192*64 + 9*64*96 + 9*96*96; pool 192*32.
WEIGHTS = {
    "stem": (49 * 3 * 64 + 64 * 64 + 9 * 64 * 192, 64 + 64 + 192),
    "inception_3a": (218_112, 64 + 64 + 64 + 64 + 2 * 96 + 32),
    "inception_3b": (259_072, 64 + 64 + 96 + 64 + 2 * 96 + 64),
    "inception_3c": (384_000, 128 + 160 + 64 + 2 * 96),
    "inception_4a": (608_256, 224 + 64 + 96 + 96 + 2 * 128 + 128),
    "inception_4b": (663_552, 192 + 96 + 128 + 96 + 2 * 128 + 128),
    "inception_4c": (893_952, 160 + 128 + 160 + 128 + 2 * 160 + 96),
    "inception_4d": (1_105_920, 96 + 128 + 192 + 160 + 2 * 192 + 96),
    "inception_4e": (1_437_696, 128 + 192 + 192 + 2 * 256),
    "inception_5a": (2_179_072, 352 + 192 + 320 + 160 + 2 * 224 + 128),
    "inception_5b": (2_276_352, 352 + 192 + 320 + 192 + 2 * 224 + 128),
}


def build(image_size: int | None) -> Any:
    import_keras().utils.set_random_seed(1)
    return build_model(ARCHITECTURES.get("inceptionv2"), image_size=image_size, classes=7)


@pytest.fixture(scope="module")
def model() -> Any:
    return build(224)


@pytest.fixture(scope="module")
def any_size() -> Any:
    """The network on images of any size."""
    return build(None)


def convolutions(model: Any) -> list[Any]:
    return [layer for layer in model.layers if isinstance(layer, import_keras().layers.Conv2D)]


def test_each_row_has_the_published_output(model: Any) -> None:
    for name, (size, channels) in OUTPUTS.items():
        shape = (None, channels) if size is None else (None, size, size, channels)
        assert model.get_layer(name).output_shape == shape, name


@pytest.mark.parametrize("row", WEIGHTS)
def test_each_row_has_the_parameters_of_the_table(model: Any, row: str) -> None:
    kernels, channels = WEIGHTS[row]
    layers = [layer for layer in model.layers if layer.name.startswith(f"{row}_")]
    assert sum(layer.count_params() for layer in layers) == kernels + 4 * channels


def test_it_has_ten_million_parameters(model: Any) -> None:
    body = sum(kernels + 4 * channels for kernels, channels in WEIGHTS.values())
    assert body == 10_189_888
    assert model.count_params() == body + 1024 * 7 + 7


def test_every_convolution_is_without_bias_and_normalized(model: Any) -> None:
    assert len(convolutions(model)) == 69
    for layer in convolutions(model):
        assert not layer.use_bias
        (normalized,) = [node.outbound_layer for node in layer.outbound_nodes]
        (activated,) = [node.outbound_layer for node in normalized.outbound_nodes]
        stem = layer.name.removesuffix("_conv")
        assert (normalized.name, activated.name) == (f"{stem}_bn", f"{stem}_relu")


def test_pools_are_averages_but_where_the_figure_says_maximum(model: Any) -> None:
    kinds = {
        layer.name: type(layer).__name__ for layer in model.layers if layer.name.endswith("_pool")
    }
    maxima = {name for name, kind in kinds.items() if kind == "MaxPooling2D"}
    assert len(kinds) == 10
    assert maxima == {"inception_3c_pool", "inception_4e_pool", "inception_5b_pool"}


@pytest.mark.parametrize(("before", "after"), [("3b", "3c"), ("4d", "4e")])
def test_a_halving_block_passes_its_input_through_a_maximum(
    any_size: Any, before: str, after: str
) -> None:
    outputs = [any_size.get_layer(f"inception_{name}_output").output for name in (before, after)]
    pixels = np.random.default_rng(2).uniform(0, 255, (1, 64, 64, 3)).astype(np.float32)
    part = import_keras().Model(any_size.input, outputs)
    entered, left = (np.asarray(value) for value in part(pixels, training=False))
    passed = left[..., -entered.shape[-1] :]
    maxima = entered[0, :3, :3].max(axis=(0, 1))  # even sizes are padded at the end alone
    np.testing.assert_array_equal(passed[0, 0, 0], maxima)
    assert left.shape[1] == entered.shape[1] // 2


@pytest.mark.parametrize(("image_size", "positions"), [(32, 1), (33, 2), (64, 2), (80, 3)])
def test_small_images_leave_a_position_for_every_32_pixels(
    any_size: Any, image_size: int, positions: int
) -> None:
    last = any_size.get_layer("inception_5b_output").output
    part = import_keras().Model(any_size.input, last)
    shape = part.compute_output_shape((None, image_size, image_size, 3))
    assert shape == (None, positions, positions, 1024)
