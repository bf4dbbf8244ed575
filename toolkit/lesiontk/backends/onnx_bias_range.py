"""Biases of a Q/DQ ONNX graph: which were cut off, and weight scales that leave them room."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from lesiontk.backends.tensorrt.graph import constants_of
from lesiontk.calibration.bias_range import find_saturated, least_scales, store_layer

WEIGHTED = ("Conv", "Gemm")

Constants = Mapping[str, NDArray[Any]]


@dataclass(frozen=True, slots=True)
class BiasedLayer:
    """A layer with integer weights and bias: the DequantizeLinear of each input."""

    input: onnx.NodeProto
    weights: onnx.NodeProto
    bias: onnx.NodeProto


def list_saturated(model: onnx.ModelProto) -> dict[str, list[int]]:
    """Return the channels whose bias was cut off at the end of int32, by the layer's node."""
    constants = constants_of(model.graph)
    biases = {
        node.output[0]: constants[node.input[0]]
        for node in model.graph.node
        if node.op_type == "DequantizeLinear"
        and node.input[0] in constants
        and constants[node.input[0]].dtype == np.int32
    }
    found = {
        node.name or node.output[0]: find_saturated(biases[name])
        for node in model.graph.node
        for name in node.input
        if name in biases
    }
    return {name: channels for name, channels in found.items() if channels}


def leave_room_for_biases(model: onnx.ModelProto) -> None:
    """Raise weight scales in place until the biases take half of int32 at most.

    ONNX Runtime's quantizer raises them only until a bias fits, and adds the products to it in the
    same 32 bits, so that their sum may overflow. What it stores is the true bias, therefore. No two
    layers may read one weight, as `separate_weights` sees to.
    """
    constants = constants_of(model.graph)
    changed: dict[str, NDArray[Any]] = {}
    for layer in _list_layers(model.graph, constants):
        changed |= _raise_scales(layer, constants)
    for entry in model.graph.initializer:
        if entry.name in changed:
            entry.CopyFrom(numpy_helper.from_array(changed[entry.name], entry.name))


def _list_layers(graph: onnx.GraphProto, constants: Constants) -> Iterator[BiasedLayer]:
    makers = {node.output[0]: node for node in graph.node if node.op_type == "DequantizeLinear"}
    for node in graph.node:
        if node.op_type not in WEIGHTED or len(node.input) < 3:
            continue
        sources = [makers.get(name) for name in node.input[:3]]
        entry, weights, bias = sources
        if entry is None or weights is None or bias is None:
            continue
        if weights.input[0] in constants and bias.input[0] in constants:
            yield BiasedLayer(entry, weights, bias)


def _raise_scales(layer: BiasedLayer, constants: Constants) -> dict[str, NDArray[Any]]:
    """Return the layer's constants that change, by name."""
    weight, weight_scale = layer.weights.input[:2]
    bias, bias_scale = layer.bias.input[:2]
    values, scales = constants[weight], np.atleast_1d(constants[weight_scale])
    input_scale = float(constants[layer.input.input[1]])
    real = constants[bias] * np.asarray(constants[bias_scale], np.float64)
    least = least_scales(real, input_scale, scales.size)
    if (scales >= least).all():
        return {}
    axis = 0
    if scales.size > 1:
        axis = next(helper.get_attribute_value(a) for a in layer.weights.attribute)
    stored = store_layer(np.moveaxis(values, axis, 0), scales, least, real, input_scale)
    steps = stored.scales * np.float32(input_scale)
    return {
        weight: np.moveaxis(stored.weights, 0, axis),
        weight_scale: stored.scales.reshape(constants[weight_scale].shape),
        bias: stored.bias.astype(np.int32),
        bias_scale: steps.reshape(constants[bias_scale].shape),
    }
