"""A model without BatchNormalization that answers alike: what an int8 graph is made of anyway.

A normalisation behind a convolution or dense layer is folded into its weights (Jacob et al.,
arXiv:1712.05877, section 3.2); one of flat features, into the dense layer that reads them. One that
stands elsewhere, as in ResNet V2, becomes an equal 1 x 1 depthwise convolution, which every back
end quantizes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lesiontk.compress.keras_layers import config_today, read_layers, rebuild_model
from lesiontk.compress.layers import PRODUCING, Layer, find_readers
from lesiontk.errors import DataError
from lesiontk.frameworks import import_keras

Weights = list[NDArray[np.float32]]
Affine = tuple[NDArray[np.float32], NDArray[np.float32]]
FOLDING = (*PRODUCING, "DepthwiseConv2D")


def fold_batchnorm(model: Any) -> Any:
    """Return a float32 model without BatchNormalization whose outputs equal those of `model`.

    Its other layers keep their names. Raises `DataError` with the layer's name for a normalisation
    that can neither be folded nor replaced, and for a layer that is not understood.
    """
    layers = read_layers(model)
    folded = find_folds(layers)
    ahead = find_folds_ahead(layers, folded)
    gone = {*folded.values(), *ahead.values()}
    weights: dict[str, Weights] = {}

    def call(layer: Layer, source: Any, inputs: Any) -> Any:
        if layer.name in gone:
            return inputs
        if layer.kind == "BatchNormalization":
            ours, weights[layer.name] = _replace(source, layer)
        else:
            before, behind = (
                affine_from_batchnorm(model.get_layer(folds[layer.name]))
                if layer.name in folds
                else None
                for folds in (ahead, folded)
            )
            ours, weights[layer.name] = _copy(source, layer, before, behind)
        return ours(inputs)

    plain = rebuild_model(model, layers, call)
    for name, values in weights.items():
        if values:
            plain.get_layer(name).set_weights(values)
    return plain


def find_folds(layers: tuple[Layer, ...]) -> dict[str, str]:
    """Return weighted layer -> the normalisation that is folded into it.

    The layer must be linear and read by the normalisation alone.
    """
    readers = find_readers(layers)
    folds = {}
    for layer in layers:
        after = readers.get(layer.name, [])
        alone = len(after) == 1 and after[0].kind == "BatchNormalization"
        if layer.kind in FOLDING and alone and layer.activation == "linear":
            folds[layer.name] = after[0].name
    return folds


def find_folds_ahead(layers: tuple[Layer, ...], folded: Mapping[str, str]) -> dict[str, str]:
    """Return dense layer -> the normalisation of flat features that is folded into it.

    The layer must be its only reader, with nothing between; `folded` are those of `find_folds`.
    """
    readers = find_readers(layers)
    folds = {}
    for layer in layers:
        after = readers.get(layer.name, [])
        alone = len(after) == 1 and after[0].kind == "Dense"
        flat = layer.kind == "BatchNormalization" and len(layer.shape) == 1
        if flat and alone and layer.name not in folded.values():
            folds[after[0].name] = layer.name
    return folds


def affine_from_batchnorm(layer: Any) -> Affine:
    """Return scale and shift [C] of a trained normalisation: it gives ``x * scale + shift``."""
    mean, variance = (value.numpy() for value in (layer.moving_mean, layer.moving_variance))
    scale = 1 / np.sqrt(variance.astype(np.float64) + layer.epsilon)
    if layer.scale:
        scale = scale * layer.gamma.numpy()
    shift = -mean * scale
    if layer.center:
        shift = shift + layer.beta.numpy()
    return scale.astype(np.float32), shift.astype(np.float32)


def _copy(
    source: Any, layer: Layer, before: Affine | None, behind: Affine | None
) -> tuple[Any, Weights]:
    """Return the layer and its weights, with the normalisations before and behind it in them."""
    config = config_today(source)
    weights = source.get_weights()
    if before is None and behind is None:
        return type(source).from_config(config), weights
    config["use_bias"] = True
    *others, kernel = weights[:-1] if layer.has_bias else weights
    bias = weights[-1] if layer.has_bias else np.zeros(layer.channels, np.float32)
    if before is not None:  # of a dense layer: [in, out]
        scale, shift = before
        bias = bias + shift.astype(np.float64) @ kernel
        kernel = scale[:, np.newaxis] * kernel
    if behind is not None:
        scale, shift = behind
        factor = scale
        if layer.kind == "DepthwiseConv2D":  # [h, w, in, multiplier]: output c * multiplier + m
            factor = scale.reshape(kernel.shape[2:])
        kernel, bias = kernel * factor, bias * scale + shift
    return type(source).from_config(config), [*others, kernel, bias.astype(np.float32)]


def _replace(source: Any, layer: Layer) -> tuple[Any, Weights]:
    if len(layer.shape) != 3:
        raise DataError(
            f"layer {layer.name!r} (BatchNormalization) stands behind no linear layer and its "
            f"input is {list(layer.shape)}; expected a dense layer or a convolution before it, or "
            "a dense layer alone right behind it."
        )
    scale, shift = affine_from_batchnorm(source)
    ours = import_keras().layers.DepthwiseConv2D(1, name=layer.name)
    return ours, [scale.reshape(1, 1, -1, 1), shift]
