"""A model in which what an int8 engine rounds before an activation is a layer's output.

TFLite computes ReLU in one operator with the layer that it is within; of any other function, it
rounds what goes into it, too. A Rescaling is a multiplication and an addition.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from lesiontk.compress.keras_layers import config_today, read_layers, rebuild_model
from lesiontk.compress.layers import MIXING, PRODUCING, Layer
from lesiontk.system.frameworks import import_keras

WITHIN = ("linear", "relu", *MIXING)
"""Functions that stay within their layer."""


def split_activations(model: Any) -> Any:
    """Return the model with layers' own activations, but `WITHIN`, as layers behind them.

    They are called after layer and function; all others keep their names, and the outputs are the
    same. A Rescaling within the network that multiplies and adds becomes two. Without any of these
    it is `model` itself.
    """
    layers = read_layers(model)
    linear = (*PRODUCING, "DepthwiseConv2D")
    split = {x.name for x in layers if x.kind in linear and x.activation not in WITHIN}
    images = {layer.name for layer in layers if layer.kind == "InputLayer"}
    doubled = {
        x.name
        for x in layers
        if x.kind == "Rescaling" and not images.intersection(x.inputs) and _is_double(model, x.name)
    }
    if not split | doubled:
        return model

    def call(layer: Layer, source: Any, inputs: Any) -> Any:
        config = config_today(source)
        if layer.name in doubled:
            name = f"{layer.name}_scale"
            inputs = type(source).from_config({**config, "offset": 0.0, "name": name})(inputs)
            return type(source).from_config({**config, "scale": 1.0})(inputs)
        if layer.name not in split:
            return type(source).from_config(config)(inputs)
        linear_output = type(source).from_config({**config, "activation": "linear"})(inputs)
        name = f"{layer.name}_{layer.activation}"
        return import_keras().layers.Activation(layer.activation, name=name)(linear_output)

    parted = rebuild_model(model, layers, call)
    for layer in layers:
        parted.get_layer(layer.name).set_weights(model.get_layer(layer.name).get_weights())
    return parted


def _is_double(model: Any, name: str) -> bool:
    config = model.get_layer(name).get_config()
    return bool(np.any(np.not_equal(config["scale"], 1)) and np.any(config["offset"]))
