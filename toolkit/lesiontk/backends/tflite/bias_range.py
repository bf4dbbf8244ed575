"""Biases of an integer TFLite graph: saturated ones, and weight scales that avoid it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray

from lesiontk.backends.tflite.graph import (
    constant,
    drop_unused_buffers,
    dump_model,
    operator_name,
    read_model,
)
from lesiontk.calibration.bias_range import (
    choose_scales,
    find_saturated,
    least_scales,
    store_layer,
)
from lesiontk.errors import DataError

PLACES: Final = {
    "CONV_2D": (0, 1, 2),
    "DEPTHWISE_CONV_2D": (0, 1, 2),
    "FULLY_CONNECTED": (0, 1, 2),
    "TRANSPOSE_CONV": (2, 1, 3),
}
"""Kind of operator -> positions of its input, weights and bias among its inputs."""
STORED_AS: Final[dict[int, type[np.signedinteger[Any]]]] = {
    schema.TensorType.INT32: np.int32,
    schema.TensorType.INT64: np.int64,
}


@dataclass(frozen=True, slots=True)
class BiasedLayer:
    """An operator with a bias: its output's name, and the tensors' numbers in the graph."""

    name: str
    operator: Any
    input: int
    weights: int
    bias: int


def read_biases(content: bytes) -> dict[str, NDArray[np.float64]]:
    """Return the real biases [out] of a graph, float or integer, by the layer's output."""
    model = read_model(content)
    graph = model.subgraphs[0]
    found = {}
    for layer in _list_layers(model, graph):
        tensor = graph.tensors[layer.bias]
        if tensor.type in STORED_AS:
            steps = np.asarray(tensor.quantization.scale, np.float64)
            found[layer.name] = _read(model, tensor) * steps
        elif (values := constant(model, graph, layer.bias)) is not None:
            found[layer.name] = values.astype(np.float64)
    return found


def list_saturated(content: bytes) -> dict[str, list[int]]:
    """Return the channels whose bias saturates int32, by the layer's output."""
    model = read_model(content)
    graph = model.subgraphs[0]
    found = {
        layer.name: find_saturated(_read(model, graph.tensors[layer.bias]))
        for layer in _list_layers(model, graph)
        if graph.tensors[layer.bias].type in STORED_AS
    }
    return {name: channels for name, channels in found.items() if channels}


def leave_room_for_biases(content: bytes, biases: Mapping[str, NDArray[Any]]) -> bytes:
    """Return the integer graph with weight scales that prevent bias saturation.

    `biases` has the real biases [out] of each layer, by its output's name. The weights and biases
    of a layer with increased scales are quantized again; the others are unchanged. Raises
    `DataError` for a layer whose bias is unknown.
    """
    model = read_model(content)
    graph = model.subgraphs[0]
    by_weights: dict[int, list[BiasedLayer]] = {}
    for layer in _list_layers(model, graph):
        if graph.tensors[layer.bias].type in STORED_AS:
            if layer.name not in biases:
                raise DataError(f"the bias of {layer.name} is missing in the float graph.")
            by_weights.setdefault(layer.weights, []).append(layer)
    for layers in by_weights.values():
        _raise_scales(model, graph, layers, biases)
    drop_unused_buffers(model)
    return dump_model(model)


def _list_layers(model: Any, graph: Any) -> Iterator[BiasedLayer]:
    for operator in graph.operators:
        places = PLACES.get(operator_name(model, operator))
        if places is None or len(operator.inputs) <= places[2] or operator.inputs[places[2]] < 0:
            continue
        inputs = [int(operator.inputs[place]) for place in places]
        name = graph.tensors[operator.outputs[0]].name.decode()
        if model.buffers[graph.tensors[inputs[2]].buffer].data is not None:
            yield BiasedLayer(name, operator, *inputs)


def _raise_scales(
    model: Any, graph: Any, layers: Sequence[BiasedLayer], biases: Mapping[str, NDArray[Any]]
) -> None:
    """Increase the scales of a weight of these layers where one of their biases needs it."""
    weights = graph.tensors[layers[0].weights]
    scales = np.asarray(weights.quantization.scale, np.float32)
    input_scales = [float(graph.tensors[layer.input].quantization.scale[0]) for layer in layers]
    least = np.max(
        [
            least_scales(biases[layer.name], scale, len(scales))
            for layer, scale in zip(layers, input_scales, strict=True)
        ],
        axis=0,
    )
    axis = int(weights.quantization.quantizedDimension)
    values = np.moveaxis(_read(model, weights).reshape(weights.shape), axis, 0)
    chosen = choose_scales(values, scales, least)
    if (chosen == scales).all():
        return
    for layer, input_scale in zip(layers, input_scales, strict=True):
        stored = store_layer(values, scales, chosen, biases[layer.name], input_scale)
        bias = graph.tensors[layer.bias]
        _write(model, bias, stored.bias)
        bias.quantization.scale = stored.scales * np.float32(input_scale)
    _write(model, weights, np.moveaxis(stored.weights, 0, axis))
    weights.quantization.scale = stored.scales


def _read(model: Any, tensor: Any) -> NDArray[Any]:
    data = model.buffers[tensor.buffer].data
    return np.frombuffer(bytes(data), STORED_AS.get(tensor.type, np.int8))


def _write(model: Any, tensor: Any, values: NDArray[Any]) -> None:
    """Give a tensor its own buffer, because tensors may share one."""
    buffer = schema.BufferT()
    content = values.astype(STORED_AS.get(tensor.type, np.int8)).tobytes()
    buffer.data = np.frombuffer(content, np.uint8)
    model.buffers.append(buffer)
    tensor.buffer = len(model.buffers) - 1
