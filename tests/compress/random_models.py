"""Random functional models of everything that compression understands."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from lesiontk.system.frameworks import import_keras


def list_seeds(count: int) -> list[Any]:
    """Return the seeds of so many models; all but the first six are slow."""
    return [
        pytest.param(s, id=str(s), marks=pytest.mark.slow if s > 5 else ()) for s in range(count)
    ]


def build_random_model(
    seed: int, size: int = 12, classes: int = 3, *, unusual: bool = False
) -> Any:
    """Return a model with branches, skips, gates, concatenations, and a random head.

    An `unusual` one normalizes anything, strides without padding and pools by the maximum, too.
    """
    keras = import_keras()
    generator = np.random.default_rng(seed)
    keras.utils.set_random_seed(seed)
    layers = keras.layers
    image = keras.Input((size, size, 3), name="image")
    x = layers.Rescaling(1 / 255, name="normalisation")(image)
    x = layers.Conv2D(int(generator.integers(3, 7)), 3, padding="same", name="stem")(x)
    for _ in range(int(generator.integers(2, 6))):
        blocks = UNUSUAL if unusual and generator.random() < 0.5 else BLOCKS
        x = blocks[int(generator.integers(len(blocks)))](layers, x, generator)
    if unusual and generator.random() < 0.5:
        x = layers.GlobalMaxPooling2D()(x)
    else:
        flatten = layers.GlobalAveragePooling2D() if generator.random() < 0.5 else layers.Flatten()
        x = flatten(x)
    if generator.random() < 0.5:
        x = layers.Dense(int(generator.integers(3, 9)), activation="relu")(x)
        x = layers.Dropout(0.2)(x)
    logits = layers.Dense(classes, name="logits")(x)
    model = keras.Model(image, layers.Softmax(name="probabilities")(logits))
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):
            shape = layer.gamma.shape
            layer.set_weights(
                [
                    generator.uniform(0.5, 1.5, shape),
                    generator.normal(0, 0.3, shape),
                    generator.normal(0, 0.3, shape),
                    generator.uniform(0.5, 1.5, shape),
                ]
            )
    return model


def _conv(layers: Any, x: Any, generator: Any) -> Any:
    width = int(generator.integers(2, 8))
    x = layers.Conv2D(width, 3, padding="same", use_bias=bool(generator.integers(2)))(x)
    if generator.random() < 0.7:
        x = layers.BatchNormalization()(x)
    return layers.Activation(str(generator.choice(["relu", "tanh", "swish"])))(x)


def _depthwise(layers: Any, x: Any, generator: Any) -> Any:
    multiplier = int(generator.integers(1, 3))
    x = layers.DepthwiseConv2D(3, padding="same", depth_multiplier=multiplier)(x)
    return layers.ReLU(6.0)(x)


def _separable(layers: Any, x: Any, generator: Any) -> Any:
    return layers.SeparableConv2D(
        int(generator.integers(2, 7)), 3, padding="same", depth_multiplier=2
    )(x)


def _skip(layers: Any, x: Any, generator: Any) -> Any:
    inner = _conv(layers, x, generator)
    back = layers.Conv2D(x.shape[-1], 1, name=None)(inner)
    return layers.ReLU()(layers.Add()([x, back]))


def _branches(layers: Any, x: Any, generator: Any) -> Any:
    parts = [_conv(layers, x, generator), layers.Conv2D(3, 1)(x), x]
    return layers.Concatenate()(parts[: int(generator.integers(2, 4))])


def _gate(layers: Any, x: Any, generator: Any) -> Any:
    """Squeeze and excite."""
    width = x.shape[-1]
    s = layers.GlobalAveragePooling2D()(x)
    s = layers.Dense(int(generator.integers(2, 5)), activation="relu")(s)
    s = layers.Dense(width, activation="sigmoid")(s)
    return layers.Multiply()([x, layers.Reshape((1, 1, width))(s)])


def _pool(layers: Any, x: Any, generator: Any) -> Any:
    if x.shape[1] < 4:
        return x
    kind = layers.MaxPooling2D if generator.random() < 0.5 else layers.AveragePooling2D
    return kind(2)(layers.ZeroPadding2D(1)(x))


def _preactivation(layers: Any, x: Any, generator: Any) -> Any:
    """Normalization of what a block before has joined, or of a depthwise layer's output."""
    x = (
        _branches(layers, x, generator)
        if generator.random() < 0.5
        else _depthwise(layers, x, generator)
    )
    x = layers.BatchNormalization()(x)
    x = layers.LeakyReLU(0.1)(x) if generator.random() < 0.5 else layers.ELU()(x)
    return layers.Conv2D(int(generator.integers(2, 7)), 1)(x)


def _normalized_depthwise(layers: Any, x: Any, generator: Any) -> Any:
    x = layers.DepthwiseConv2D(3, padding="same", use_bias=False)(x)
    return layers.ReLU()(layers.BatchNormalization()(x))


def _stride(layers: Any, x: Any, generator: Any) -> Any:
    if x.shape[1] < 5:
        return x
    return layers.Conv2D(int(generator.integers(3, 8)), 3, strides=2, padding="valid")(x)


BLOCKS = (_conv, _depthwise, _separable, _skip, _branches, _gate, _pool)
UNUSUAL = (_preactivation, _normalized_depthwise, _stride)
