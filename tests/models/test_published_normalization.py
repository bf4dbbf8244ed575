"""Pretrained weights need the normalization that they were trained with."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from lesiontk.models import ARCHITECTURES

Pixels = NDArray[np.float32]


def normalize_rgb(scale: float, shift: float) -> Callable[[Pixels], Pixels]:
    return lambda pixels: pixels / np.float32(scale) - np.float32(shift)


def subtract_imagenet_mean(pixels: Pixels) -> Pixels:
    """VGG's training subtracted the mean of ImageNet, published in BGR order."""
    return pixels - np.array([103.939, 116.779, 123.68], np.float32)[::-1]


PUBLISHED_NORMALIZATION: dict[str, Callable[[Pixels], Pixels]] = {
    "cnn": normalize_rgb(128, 1),
    "inceptionv2": normalize_rgb(128, 1),
    "resnet152v2": normalize_rgb(127.5, 1),
    "vgg16": subtract_imagenet_mean,
    "efficientnet_lite0": normalize_rgb(128, 127 / 128),
    "efficientnet_lite1": normalize_rgb(128, 127 / 128),
    "efficientnet_lite2": normalize_rgb(128, 127 / 128),
}


@pytest.mark.parametrize("name", PUBLISHED_NORMALIZATION)
def test_an_architecture_states_the_published_normalization(name: str) -> None:
    pixels = np.random.default_rng(5).uniform(0, 255, (2, 9, 9, 3)).astype(np.float32)
    pixels[0, 0, 0], pixels[0, 0, 1] = 0, 255
    stated = ARCHITECTURES.get(name).normalization
    received = pixels * np.float32(stated.scale) + np.array(stated.offset, np.float32)
    expected = PUBLISHED_NORMALIZATION[name](pixels)
    np.testing.assert_allclose(received, expected, atol=2e-5)
    exchanged = pixels[..., ::-1] * np.float32(stated.scale) + np.array(stated.offset, np.float32)
    assert np.abs(exchanged - expected).max() > 0.1  # it sees another channel order
