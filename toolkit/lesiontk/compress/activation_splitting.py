"""A model in which what an int8 engine rounds before an activation is a layer's output.

TFLite computes ReLU in one operator with the layer that it is within; of any other function, it
rounds what goes into it, too.
"""

from __future__ import annotations

from typing import Any

from lesiontk.compress.keras_layers import config_today, read_layers, rebuild_model
from lesiontk.compress.layers import MIXING, PRODUCING, Layer
from lesiontk.frameworks import import_keras

WITHIN = ("linear", "relu", *MIXING)
"""Functions that stay within their layer."""


def split_activations(model: Any) -> Any:
    """Return the model with layers' own activations, but `WITHIN`, as layers behind them.

    They are called after layer and function; all others keep their names, and the outputs are the
    same. Without such an activation it is `model` itself.
    """
    layers = read_layers(model)
    linear = (*PRODUCING, "DepthwiseConv2D")
    split = {x.name for x in layers if x.kind in linear and x.activation not in WITHIN}
    if not split:
        return model

    def call(layer: Layer, source: Any, inputs: Any) -> Any:
        config = config_today(source)
        if layer.name not in split:
            return type(source).from_config(config)(inputs)
        linear_output = type(source).from_config({**config, "activation": "linear"})(inputs)
        name = f"{layer.name}_{layer.activation}"
        return import_keras().layers.Activation(layer.activation, name=name)(linear_output)

    parted = rebuild_model(model, layers, call)
    for layer in layers:
        parted.get_layer(layer.name).set_weights(model.get_layer(layer.name).get_weights())
    return parted
