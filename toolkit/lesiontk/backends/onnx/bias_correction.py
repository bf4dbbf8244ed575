"""Bias correction of a float ONNX graph before its weights are quantized."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from lesiontk.backends.onnx.constants import constants_of, drop_unused_constants
from lesiontk.backends.onnx.graph import INPUT
from lesiontk.calibration.bias_correction import (
    Floats,
    Window,
    average_inputs,
    mean_shift,
    mean_window,
    pad_same,
)
from lesiontk.calibration.ranges import TensorReader
from lesiontk.errors import DataError

WEIGHTED = ("Conv", "Gemm")


def correct_biases(
    model: onnx.ModelProto,
    read: TensorReader,
    images: Iterable[NDArray[np.uint8]],
    limit: int,
    float_layers: Collection[str] = (),
) -> int:
    """Correct the biases of convolutions and dense layers in place; return how many.

    `read` returns the float graph's tensors for one of the `images`, uint8 [1, S, S, 3]; `limit` is
    the largest stored int8 weight. The graph is only for quantization: run in float, it is biased
    by the opposite of the shift of int8 weights. A layer without a bias gets one; layers whose
    output is among `float_layers` are not corrected.
    """
    graph = model.graph
    constants = constants_of(graph)
    layers = [
        node
        for node in graph.node
        if node.op_type in WEIGHTED
        and node.input[1] in constants
        and (len(node.input) < 3 or node.input[2] in constants)
        and node.output[0] not in float_layers
    ]
    if not layers:
        return 0

    def measure_inputs(image: NDArray[np.uint8]) -> list[Floats]:
        values = {INPUT: image, **read(image)}
        return [_mean_input(n, values[n.input[0]], constants[n.input[1]]) for n in layers]

    for node, mean in zip(layers, average_inputs(images, measure_inputs), strict=True):
        shift = mean_shift(_weights(node, constants[node.input[1]]), mean, limit)
        bias = constants[node.input[2]] if len(node.input) > 2 else np.zeros(1)
        corrected = (np.asarray(bias, np.float64) - shift).astype(np.float32)
        name = f"{node.name or node.output[0]}/corrected_bias"
        graph.initializer.append(numpy_helper.from_array(corrected, name))
        node.input[:] = [node.input[0], node.input[1], name]
    drop_unused_constants(graph)
    return len(layers)


def _attributes(node: onnx.NodeProto) -> dict[str, Any]:
    return {entry.name: helper.get_attribute_value(entry) for entry in node.attribute}


def _weights(node: onnx.NodeProto, values: NDArray[Any]) -> NDArray[Any]:
    """Return a layer's weights as [groups, out, in, height, width]."""
    attributes = _attributes(node)
    if node.op_type == "Gemm":
        plain = all(attributes.get(name, 1.0) == 1.0 for name in ("alpha", "beta"))
        if not plain or attributes.get("transA", 0):
            raise DataError(
                f"Gemm {node.name} is not a plain dense layer; its bias cannot be corrected."
            )
        turned = values if attributes.get("transB", 0) else values.T
        return turned[np.newaxis, :, :, np.newaxis, np.newaxis]
    if values.ndim != 4:
        raise DataError(f"Conv {node.name} has weights {list(values.shape)}; expected four axes.")
    groups = int(attributes.get("group", 1))
    return values.reshape(groups, len(values) // groups, *values.shape[1:])


def _mean_input(node: onnx.NodeProto, values: NDArray[Any], weights: NDArray[Any]) -> Floats:
    if node.op_type == "Gemm":
        return mean_window(values[:, np.newaxis, np.newaxis, :], Window())
    return mean_window(values.transpose(0, 2, 3, 1), _window(node, values, weights))


def _window(node: onnx.NodeProto, values: NDArray[Any], weights: NDArray[Any]) -> Window:
    attributes = _attributes(node)
    kernel = (int(weights.shape[2]), int(weights.shape[3]))
    strides = tuple(int(n) for n in attributes.get("strides", (1, 1)))
    dilations = tuple(int(n) for n in attributes.get("dilations", (1, 1)))
    rule = attributes.get("auto_pad", b"NOTSET").decode()
    top, left, bottom, right = (int(n) for n in attributes.get("pads", (0, 0, 0, 0)))
    if rule in ("SAME_UPPER", "SAME_LOWER"):
        (top, bottom), (left, right) = (
            pad_same(values.shape[2 + axis], kernel[axis], strides[axis], dilations[axis])
            for axis in (0, 1)
        )
        if rule == "SAME_LOWER":
            top, bottom, left, right = bottom, top, right, left
    return Window(
        kernel, (strides[0], strides[1]), (dilations[0], dilations[1]), (top, bottom, left, right)
    )
