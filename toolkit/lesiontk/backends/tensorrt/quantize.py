"""Explicit int8 for TensorRT: QuantizeLinear and DequantizeLinear where NVIDIA recommends them.

TensorRT computes in int8 where all inputs of a layer come from DequantizeLinear. Following NVIDIA's
guide (developer guide, "Working with quantized types", placement of Q/DQ nodes), all inputs of
weighted layers and average pools are quantized, and their outputs are not. Of a residual addition
only the skip is quantized, so that the addition is fused with the convolution before it. Scales are
symmetric, the zero point is 0, biases stay in float32, weights are stored only in int8.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from lesiontk.backends.onnx.constants import (
    constants_of,
    drop_unused_constants,
    normalized_tensors,
    replace_constant,
)
from lesiontk.calibration.bias_range import least_scales
from lesiontk.errors import DataError

WEIGHTED: Final = ("Conv", "Gemm")
AVERAGED: Final = ("AveragePool", "GlobalAveragePool")
LIMIT: Final = 127
"""The largest stored int8 weight."""


def symmetric_scale(low: float, high: float) -> float:
    """Return the scale of a range that contains zero; a value x is stored as ``round(x / scale)``.

    The stored values are -128..127, so that a range such as [-1, 127/128] needs no rounding.
    """
    return max(-low / 128, high / 127, float(np.finfo(np.float32).tiny))


def quantize_weight(
    weight: NDArray[np.float32], least: NDArray[np.float64] | None = None
) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Return int8 values and scales float32 [out] of a weight [out, ...], one scale per channel.

    No scale is below `least` [out].
    """
    axes = tuple(range(1, weight.ndim))
    extreme = np.abs(weight).max(axis=axes).astype(np.float32)
    scales = np.maximum(extreme / np.float32(LIMIT), np.finfo(np.float32).tiny)
    if least is not None:
        scales = np.maximum(scales, least).astype(np.float32)
    spread = scales.reshape(-1, *(1,) * len(axes))
    return np.clip(np.rint(weight / spread), -LIMIT, LIMIT).astype(np.int8), scales


def insert_quantization(
    model: onnx.ModelProto,
    ranges: Mapping[str, tuple[float, float]],
    keep_float: Collection[str] = (),
    float_layers: Collection[str] = (),
) -> None:
    """Quantize a prepared float graph in place; `ranges` has (low, high) of every tensor.

    Operator types in `keep_float` (case-insensitive) and the producers of `float_layers` stay in
    float. Every other layer gets its own Q/DQ nodes: TensorRT moves and merges them, which shared
    nodes prevent.
    """
    graph = model.graph
    types = {name.lower() for name in keep_float}
    kept = {n.output[0] for n in graph.node if n.op_type.lower() in types} | set(float_layers)
    weights = constants_of(graph)
    skips = find_skips(graph, kept)
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        if node.output[0] in kept:
            nodes.append(node)
            continue
        if node.op_type in WEIGHTED and node.input[1] in weights:
            # TensorRT gets the bias in float and adds it to the int32 sum itself.
            bias = weights.get(node.input[2]) if len(node.input) > 2 else None
            scale = symmetric_scale(*_range_of(node, 0, ranges))
            least = None if bias is None else least_scales(bias, scale, len(bias))
            nodes += _quantize_input(graph, node, 0, ranges)
            nodes.append(_store_weight(graph, node, weights[node.input[1]], least))
        elif node.op_type in AVERAGED:
            nodes += _quantize_input(graph, node, 0, ranges)
        elif node.output[0] in skips:
            nodes += _quantize_input(graph, node, skips[node.output[0]], ranges)
        nodes.append(node)
    del graph.node[:]
    graph.node.extend(nodes)
    drop_unused_constants(graph)


def list_layers(graph: onnx.GraphProto) -> tuple[str, ...]:
    """Return the output of each layer whose inputs are quantized, in the graph's order.

    An addition is not a layer: its skip is quantized with the layer it is fused with.
    """
    return tuple(n.output[0] for n in graph.node if n.op_type in (*WEIGHTED, *AVERAGED))


def find_skips(graph: onnx.GraphProto, kept: Collection[str] = ()) -> dict[str, int]:
    """Return output -> index of the skip input, of every addition that follows a weighted layer.

    If both inputs are such a layer's output, the earlier layer is the skip. Layers whose output is
    `kept` in float do not count, because an addition is fused with them in float.
    """
    constants = {entry.name for entry in graph.initializer}
    made = {name: place for place, node in enumerate(graph.node) for name in node.output}
    skips = {}
    for node in graph.node:
        if node.op_type != "Add" or set(node.input) & constants:
            continue
        places = [made.get(name, -1) for name in node.input]
        weighted = [i for i in (0, 1) if places[i] >= 0 and node.input[i] not in kept and
                    graph.node[places[i]].op_type in WEIGHTED]  # fmt: skip
        if weighted:
            fused = max(weighted, key=lambda index: places[index])
            skips[node.output[0]] = 1 - fused
    return skips


def _range_of(
    node: onnx.NodeProto, index: int, ranges: Mapping[str, tuple[float, float]]
) -> tuple[float, float]:
    tensor = node.input[index]
    if tensor not in ranges:
        raise DataError(f"no range was measured for {tensor}, which {node.name} reads.")
    return ranges[tensor]


def _quantize_input(
    graph: onnx.GraphProto,
    node: onnx.NodeProto,
    index: int,
    ranges: Mapping[str, tuple[float, float]],
) -> tuple[onnx.NodeProto, onnx.NodeProto]:
    tensor = node.input[index]
    scale = np.array(symmetric_scale(*_range_of(node, index, ranges)), np.float32)
    parameters = [
        replace_constant(graph, f"{node.name}/input_scale", scale),
        replace_constant(graph, f"{node.name}/input_zero_point", np.array(0, np.int8)),
    ]
    middle, result = f"{node.name}/input_quantized", f"{node.name}/input_dequantized"
    node.input[index] = result
    return (
        helper.make_node("QuantizeLinear", [tensor, *parameters], [middle], f"{node.name}/q"),
        helper.make_node("DequantizeLinear", [middle, *parameters], [result], f"{node.name}/dq"),
    )


def _store_weight(
    graph: onnx.GraphProto,
    node: onnx.NodeProto,
    weight: NDArray[np.generic],
    least: NDArray[np.float64] | None,
) -> onnx.NodeProto:
    values, scales = quantize_weight(weight.astype(np.float32), least)
    zeros = np.zeros(len(scales), np.int8)
    inputs = [
        replace_constant(graph, f"{node.name}/weight_int8", values),
        replace_constant(graph, f"{node.name}/weight_scale", scales),
        replace_constant(graph, f"{node.name}/weight_zero_point", zeros),
    ]
    result = f"{node.name}/weight"
    node.input[1] = result
    return helper.make_node("DequantizeLinear", inputs, [result], f"{node.name}/weight_dq", axis=0)


def split_by_type(graph: onnx.GraphProto) -> tuple[list[onnx.NodeProto], list[onnx.NodeProto]]:
    """Return (nodes that can run in int8, nodes that compute in float).

    Weighted layers and pools with quantized inputs run in int8, with the activation or addition
    after them; operators that only move or select values have the type of their input, if all
    their readers quantize it. Q/DQ nodes, casts and the input normalization are in neither list.
    """
    border = normalized_tensors(graph)
    makers = {name: node for node in graph.node for name in node.output}
    readers: dict[str, list[str]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node.op_type)
    constants = {entry.name for entry in graph.initializer}
    integer: list[onnx.NodeProto] = []
    floating: list[onnx.NodeProto] = []
    in_int8: set[str] = set()
    for node in graph.node:
        moved = node.op_type in ("QuantizeLinear", "DequantizeLinear", "Cast")
        if moved or node.output[0] in border:
            continue
        sources = [name for name in node.input if name and name not in constants]
        dequantized = [name in makers and makers[name].op_type == "DequantizeLinear"
                       for name in sources]  # fmt: skip
        before = [name in in_int8 for name in sources]
        if node.op_type in (*WEIGHTED, *AVERAGED):
            weighed = node.op_type in AVERAGED or node.input[1] not in constants
            quantized = weighed and all(dequantized)
        elif node.op_type in ("Relu", "Clip", "Add"):
            quantized = any(before) and all(map(max, before, dequantized))
        elif node.op_type in ("MaxPool", "Concat", "Reshape", "Squeeze", "Flatten", "Transpose"):
            quantized = all(map(max, before, dequantized)) and _quantized_next(node, readers)
        else:
            quantized = False
        (integer if quantized else floating).append(node)
        if quantized:
            in_int8.update(node.output)
    return integer, floating


def _quantized_next(node: onnx.NodeProto, readers: Mapping[str, list[str]]) -> bool:
    """Return whether all readers of a node quantize its output, or only move it."""
    passing = {"QuantizeLinear", "MaxPool", "Concat", "Reshape", "Squeeze", "Flatten", "Transpose"}
    return all(set(readers.get(name, ["output"])) <= passing for name in node.output)
