"""Bias correction of a float TFLite graph before its weights are quantized."""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterable
from typing import Any

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
from lesiontk.calibration.bias_correction import (
    Floats,
    Window,
    average_inputs,
    mean_shift,
    mean_window,
    pad_same,
)
from lesiontk.calibration.ranges import TensorReader

WEIGHTED = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")
LIMIT = 127


def correct_biases(
    content: bytes,
    read: TensorReader,
    images: Iterable[NDArray[np.uint8]],
    float_layers: Collection[str] = (),
) -> tuple[bytes, int]:
    """Return the float graph with corrected biases, and how many layers were corrected.

    `read` returns its tensors for one of the `images`, uint8 [1, S, S, 3]. The graph is only for
    quantization: run in float, it is biased by the opposite of the shift of int8 weights. A layer
    without a bias gets none; layers whose output is among `float_layers` are not corrected.
    """
    model = read_model(content)
    graph = model.subgraphs[0]
    layers = [
        operator
        for operator in graph.operators
        if operator_name(model, operator) in WEIGHTED
        and constant(model, graph, operator.inputs[1]) is not None
        and len(operator.inputs) > 2
        and constant(model, graph, operator.inputs[2]) is not None
        and graph.tensors[operator.outputs[0]].name.decode() not in float_layers
    ]
    if not layers:
        return content, 0
    names = [graph.tensors[layer.inputs[0]].name.decode() for layer in layers]
    windows = [_window(model, graph, layer) for layer in layers]

    def measure_inputs(image: NDArray[np.uint8]) -> list[Floats]:
        values = read(image)
        return [_mean_input(values[n], w) for n, w in zip(names, windows, strict=True)]

    for layer, mean in zip(layers, average_inputs(images, measure_inputs), strict=True):
        shift = mean_shift(_weights(model, graph, layer), mean, LIMIT)
        _replace_bias(model, graph, layer, shift)
    drop_unused_buffers(model)
    return dump_model(model), len(layers)


def _mean_input(values: NDArray[Any], window: Window) -> Floats:
    spread = values if values.ndim == 4 else values.reshape(-1, 1, 1, values.shape[-1])
    return mean_window(spread, window)


def _window(model: Any, graph: Any, layer: Any) -> Window:
    if operator_name(model, layer) == "FULLY_CONNECTED":
        return Window()
    options = layer.builtinOptions
    kernel = tuple(int(n) for n in graph.tensors[layer.inputs[1]].shape[1:3])
    strides = (int(options.strideH), int(options.strideW))
    dilations = (int(options.dilationHFactor), int(options.dilationWFactor))
    padding = (0, 0, 0, 0)
    if options.padding == schema.Padding.SAME:
        sizes = graph.tensors[layer.inputs[0]].shape[1:3]
        down, across = (
            pad_same(int(sizes[axis]), kernel[axis], strides[axis], dilations[axis])
            for axis in (0, 1)
        )
        padding = (*down, *across)
    return Window((kernel[0], kernel[1]), strides, dilations, padding)


def _weights(model: Any, graph: Any, layer: Any) -> NDArray[Any]:
    """Return a layer's weights as [groups, out, in, height, width]."""
    tensor = graph.tensors[layer.inputs[1]]
    values = constant(model, graph, layer.inputs[1])
    weights: NDArray[Any] = np.asarray(values, np.float32).reshape(tensor.shape)
    kind = operator_name(model, layer)
    if kind == "FULLY_CONNECTED":  # [out, in]
        return weights[np.newaxis, :, :, np.newaxis, np.newaxis]
    if kind == "CONV_2D":  # [out, height, width, in of a group]
        channels = int(graph.tensors[layer.inputs[0]].shape[3])
        groups = channels // weights.shape[3]
        turned = weights.transpose(0, 3, 1, 2)
        return np.asarray(turned.reshape(groups, len(weights) // groups, *turned.shape[1:]))
    channels = int(graph.tensors[layer.inputs[0]].shape[3])  # [1, height, width, out]
    turned = weights[0].transpose(2, 0, 1)
    shape = (channels, len(turned) // channels, 1, *turned.shape[1:])
    return np.asarray(turned.reshape(shape))


def _replace_bias(model: Any, graph: Any, layer: Any, shift: NDArray[np.float64]) -> None:
    """Give a layer its own copy of the bias, because layers may share one."""
    old = int(layer.inputs[2])
    bias = np.asarray(constant(model, graph, old), np.float64) - shift
    buffer = schema.BufferT()
    buffer.data = np.frombuffer(bias.astype(np.float32).tobytes(), np.uint8)
    model.buffers.append(buffer)
    readers = sum(list(map(int, operator.inputs)).count(old) for operator in graph.operators)
    if readers == 1:
        graph.tensors[old].buffer = len(model.buffers) - 1
        return
    tensor = copy.copy(graph.tensors[old])
    tensor.buffer = len(model.buffers) - 1
    tensor.name = f"{graph.tensors[old].name.decode()}/corrected/{len(graph.tensors)}"
    graph.tensors.append(tensor)
    inputs = list(layer.inputs)
    inputs[2] = len(graph.tensors) - 1
    layer.inputs = inputs
