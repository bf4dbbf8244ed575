"""Biases of a Q/DQ ONNX graph: saturated ones, and weight scales that avoid saturation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from lesiontk.backends.onnx.constants import constants_of
from lesiontk.calibration.bias_range import (
    choose_scales,
    find_saturated,
    least_scales,
    store_layer,
)
from lesiontk.errors import DataError

WEIGHTED = ("Conv", "Gemm")

Constants = Mapping[str, NDArray[Any]]


@dataclass(frozen=True, slots=True)
class BiasedLayer:
    """A layer with integer weights and bias: its node's name, each input's DequantizeLinear."""

    name: str
    input: onnx.NodeProto
    weights: onnx.NodeProto
    bias: onnx.NodeProto


def list_saturated(model: onnx.ModelProto) -> dict[str, list[int]]:
    """Return the channels whose bias saturates int32, by the layer's node."""
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


def read_biases(model: onnx.ModelProto) -> dict[str, NDArray[np.float32]]:
    """Return the biases [out] of a float graph's layers, by the node's name."""
    constants = constants_of(model.graph)
    return {
        node.name: constants[node.input[2]]
        for node in model.graph.node
        if node.op_type in WEIGHTED and len(node.input) > 2 and node.input[2] in constants
    }


def leave_room_for_biases(model: onnx.ModelProto, biases: Mapping[str, NDArray[Any]]) -> None:
    """Increase weight scales in place until the biases use at most half of int32.

    ONNX Runtime's quantizer increases them only until a bias fits, and its kernels add the products
    to it in the same 32 bits, so that the sum may overflow. `biases` are the real ones, by the
    node's name. No two layers may read one weight, which `separate_weights` ensures. Raises
    `DataError` for a layer whose bias is unknown.
    """
    constants = constants_of(model.graph)
    changed: dict[str, NDArray[Any]] = {}
    for layer in _list_layers(model.graph, constants):
        if layer.name not in biases:
            raise DataError(f"the bias of {layer.name} is missing in the float graph.")
        changed |= _change_scales(layer, constants, biases[layer.name])
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
            yield BiasedLayer(node.name, entry, weights, bias)


def _change_scales(
    layer: BiasedLayer, constants: Constants, real: NDArray[Any]
) -> dict[str, NDArray[Any]]:
    """Return the layer's constants that change, by name."""
    weight, weight_scale = layer.weights.input[:2]
    bias, bias_scale = layer.bias.input[:2]
    values, scales = constants[weight], np.atleast_1d(constants[weight_scale])
    input_scale = float(constants[layer.input.input[1]])
    least = least_scales(real, input_scale, scales.size)
    axis = 0
    if scales.size > 1:
        axis = next(helper.get_attribute_value(a) for a in layer.weights.attribute)
    turned = np.moveaxis(values, axis, 0)
    chosen = choose_scales(turned, scales, least)
    if (chosen == scales).all():
        return {}
    stored = store_layer(turned, scales, chosen, real, input_scale)
    steps = stored.scales * np.float32(input_scale)
    return {
        weight: np.moveaxis(stored.weights, 0, axis),
        weight_scale: stored.scales.reshape(constants[weight_scale].shape),
        bias: stored.bias.astype(np.int32),
        bias_scale: steps.reshape(constants[bias_scale].shape),
    }
