"""A model in which what an int8 engine rounds before an activation is a layer's output.

TFLite computes ReLU in one operator with the layer that it is within; of any other function, it
rounds what goes into it, too.
"""

from __future__ import annotations

from typing import Any

from lesiontk.compress.keras_layers import config_today, read_layers
from lesiontk.compress.layers import MIXING, PRODUCING
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
    keras = import_keras()
    tensors: dict[str, Any] = {}
    for layer in layers:
        source = model.get_layer(layer.name)
        if layer.kind == "InputLayer":
            tensors[layer.name] = keras.Input(source.input_shape[0][1:], name=layer.name)
            continue
        config = config_today(source)
        if layer.name in split:
            config["activation"] = "linear"
        inputs = [tensors[name] for name in layer.inputs]
        output = type(source).from_config(config)(inputs if len(inputs) > 1 else inputs[0])
        if layer.name in split:
            name = f"{layer.name}_{layer.activation}"
            output = keras.layers.Activation(layer.activation, name=name)(output)
        tensors[layer.name] = output
    parted = keras.Model(
        [tensors[name] for name in model.input_names], tensors[layers[-1].name], name=model.name
    )
    for layer in layers:
        parted.get_layer(layer.name).set_weights(model.get_layer(layer.name).get_weights())
    return parted
