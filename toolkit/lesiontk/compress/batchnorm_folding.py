"""Batch normalization folding: an equivalent model without BatchNormalization.

A normalization after a convolution or dense layer is folded into its weights (Jacob et al.,
arXiv:1712.05877, section 3.2); one of flat features, into the dense layer that reads them, also
through a Dropout. A Rescaling after such a layer is folded too, and one before it that only
multiplies, as in TFLite's converter. Any other normalization, as in ResNet V2, becomes an
equivalent 1 x 1 depthwise convolution, which every back end quantizes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lesiontk.compress.keras_layers import config_without_dtype, read_layers, rebuild_model
from lesiontk.compress.layers import PRODUCING, Layer, find_next, find_readers
from lesiontk.system.frameworks import import_keras

Weights = list[NDArray[np.float32]]
Affine = tuple[NDArray[np.float32], NDArray[np.float32]]
FOLDING = (*PRODUCING, "DepthwiseConv2D")
FOLDED = ("BatchNormalization", "Rescaling")


def fold_batchnorm(model: Any) -> Any:
    """Return a float32 model without BatchNormalization whose outputs equal those of `model`.

    The other layers keep their names. Raises `DataError` with the name of an unsupported layer.
    """
    layers = read_layers(model)
    folded = find_folds(layers)
    ahead = find_folds_ahead(layers, folded)
    scaled = _find_scalings(model, layers, folded)
    folded_away = {*folded.values(), *ahead.values(), *scaled.values()}
    weights: dict[str, Weights] = {}

    def call(layer: Layer, source: Any, inputs: Any) -> Any:
        if layer.name in folded_away:
            return inputs
        if layer.kind == "BatchNormalization":
            return _replace(source, layer, inputs, weights)
        before, after = (
            affine_from_layer(model.get_layer(folds[layer.name]), width)
            if layer.name in folds
            else None
            for folds, width in ((ahead, 0), (folded, layer.channels))
        )
        layer_copy, values = _copy(source, layer, before, after)
        if layer.name in scaled:
            factor = np.float32(model.get_layer(scaled[layer.name]).scale)
            values = [values[0] * factor, *values[1:]]
        weights[layer.name] = values
        return layer_copy(inputs)

    plain = rebuild_model(model, layers, call)
    for name, values in weights.items():
        if values:
            plain.get_layer(name).set_weights(values)
    return fold_batchnorm(plain) if find_folds(read_layers(plain)) else plain  # several in sequence


def find_folds(layers: tuple[Layer, ...]) -> dict[str, str]:
    """Return weighted layer -> the normalization or Rescaling that is folded into it.

    The layer must be linear and have no other reader.
    """
    readers = find_readers(layers)
    folds = {}
    for layer in layers:
        after = find_next(layer, readers)
        alone = after is not None and after.kind in FOLDED
        if layer.kind in FOLDING and after and alone and layer.activation == "linear":
            folds[layer.name] = after.name
    return folds


def find_folds_ahead(layers: tuple[Layer, ...], folded: Mapping[str, str]) -> dict[str, str]:
    """Return dense layer -> the normalization of flat features that is folded into it.

    The layer must be its only reader, directly after it; `folded` are those of `find_folds`.
    """
    readers = find_readers(layers)
    folds = {}
    for layer in layers:
        after = find_next(layer, readers)
        flat = layer.kind == "BatchNormalization" and len(layer.shape) == 1
        dense = after is not None and after.kind == "Dense"
        if flat and after and dense and layer.name not in folded.values():
            folds[after.name] = layer.name
    return folds


def _find_scalings(
    model: Any, layers: tuple[Layer, ...], folded: Mapping[str, str]
) -> dict[str, str]:
    """Return weighted layer -> the multiplication by a scalar directly before it."""
    readers = find_readers(layers)
    images = {layer.name for layer in layers if layer.kind == "InputLayer"}
    folds = {}
    for layer in layers:
        if layer.kind != "Rescaling" or images.intersection(layer.inputs):
            continue
        source, after = model.get_layer(layer.name), find_next(layer, readers)
        multiplies = np.ndim(source.scale) == 0 and not np.any(source.offset)
        if multiplies and after and after.kind in FOLDING and layer.name not in folded.values():
            folds[after.name] = layer.name
    return folds


def affine_from_layer(layer: Any, channels: int) -> Affine:
    """Return scale and shift [C] of a normalization, or of a Rescaling of C `channels`."""
    if type(layer).__name__ == "BatchNormalization":
        return affine_from_batchnorm(layer)
    scale, shift = (
        np.broadcast_to(np.asarray(values, np.float32), channels)
        for values in (layer.scale, layer.offset)
    )
    return scale, shift


def affine_from_batchnorm(layer: Any) -> Affine:
    """Return scale and shift [C] of a trained normalization, ``x * scale + shift``."""
    mean, variance = (value.numpy() for value in (layer.moving_mean, layer.moving_variance))
    scale = 1 / np.sqrt(variance.astype(np.float64) + layer.epsilon)
    if layer.scale:
        scale = scale * layer.gamma.numpy()
    shift = -mean * scale
    if layer.center:
        shift = shift + layer.beta.numpy()
    return scale.astype(np.float32), shift.astype(np.float32)


def _copy(
    source: Any, layer: Layer, before: Affine | None, after: Affine | None
) -> tuple[Any, Weights]:
    """Return the layer and its weights with the normalizations before and after it folded in."""
    config = config_without_dtype(source)
    weights = source.get_weights()
    if before is None and after is None:
        return type(source).from_config(config), weights
    config["use_bias"] = True
    *others, kernel = weights[:-1] if layer.has_bias else weights
    bias = weights[-1] if layer.has_bias else np.zeros(layer.channels, np.float32)
    if before is not None:  # of a dense layer: [in, out]
        scale, shift = before
        bias = bias + shift.astype(np.float64) @ kernel
        kernel = scale[:, np.newaxis] * kernel
    if after is not None:
        scale, shift = after
        factor = scale
        if layer.kind == "DepthwiseConv2D":  # [h, w, in, multiplier]: output c * multiplier + m
            factor = scale.reshape(kernel.shape[2:])
        kernel, bias = kernel * factor, bias * scale + shift
    return type(source).from_config(config), [*others, kernel, bias.astype(np.float32)]


def _replace(source: Any, layer: Layer, inputs: Any, weights: dict[str, Weights]) -> Any:
    """Return the output of an equivalent depthwise convolution; its weights are added to `weights`.

    Flat features are reshaped to spatial ones for it.
    """
    keras = import_keras()
    scale, shift = affine_from_batchnorm(source)
    weights[layer.name] = [scale.reshape(1, 1, -1, 1), shift]
    convolution = keras.layers.DepthwiseConv2D(1, name=layer.name)
    if len(layer.shape) == 3:
        return convolution(inputs)
    spatial = (int(np.prod(layer.shape[:-1])), 1, layer.channels)
    x = keras.layers.Reshape(spatial, name=f"{layer.name}_places")(inputs)
    return keras.layers.Reshape(layer.shape, name=f"{layer.name}_features")(convolution(x))
