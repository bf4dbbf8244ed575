"""Separate activation layers, so that each tensor that an int8 engine rounds is a layer's output.

TFLite fuses a ReLU with its layer; of any other function it also rounds the input. A Rescaling is a
multiplication and an addition.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from lesiontk.compress.keras_layers import config_without_dtype, read_layers, rebuild_model
from lesiontk.compress.layers import MIXING, PRODUCING, Layer
from lesiontk.system.frameworks import import_keras

FUSED = ("linear", "relu", *MIXING)
"""Functions that are fused with their layer."""


def split_activations(model: Any) -> Any:
    """Return the model with activation layers instead of layers' own functions, except `FUSED`.

    Their names combine layer and function; other layers keep their names, and the outputs are the
    same. A Rescaling within the network that multiplies and adds becomes two. Without any of these
    the result is `model` itself.
    """
    layers = read_layers(model)
    linear = (*PRODUCING, "DepthwiseConv2D")
    split = {x.name for x in layers if x.kind in linear and x.activation not in FUSED}
    images = {layer.name for layer in layers if layer.kind == "InputLayer"}
    two_step = {
        x.name
        for x in layers
        if x.kind == "Rescaling" and not images.intersection(x.inputs) and _is_double(model, x.name)
    }
    if not split | two_step:
        return model

    def call(layer: Layer, source: Any, inputs: Any) -> Any:
        config = config_without_dtype(source)
        if layer.name in two_step:
            name = f"{layer.name}_scale"
            inputs = type(source).from_config({**config, "offset": 0.0, "name": name})(inputs)
            return type(source).from_config({**config, "scale": 1.0})(inputs)
        if layer.name not in split:
            return type(source).from_config(config)(inputs)
        linear_output = type(source).from_config({**config, "activation": "linear"})(inputs)
        name = f"{layer.name}_{layer.activation}"
        return import_keras().layers.Activation(layer.activation, name=name)(linear_output)

    separated = rebuild_model(model, layers, call)
    for layer in layers:
        separated.get_layer(layer.name).set_weights(model.get_layer(layer.name).get_weights())
    return separated


def _is_double(model: Any, name: str) -> bool:
    config = model.get_layer(name).get_config()
    return bool(np.any(np.not_equal(config["scale"], 1)) and np.any(config["offset"]))
