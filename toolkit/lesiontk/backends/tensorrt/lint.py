"""Rules of Q/DQ graphs for TensorRT, checked on the graph alone.

They find, without a parser, what TensorRT would refuse, or accept without int8's gain in speed.
Sources: onnx-tensorrt's docs/operators.md (zero points, uint8) and NVIDIA's developer
guide on explicit quantization.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto

from lesiontk.backends.onnx.constants import constants_of
from lesiontk.backends.tensorrt.findings import Finding
from lesiontk.backends.tensorrt.quantize import WEIGHTED

Q, DQ = "QuantizeLinear", "DequantizeLinear"


def lint_graph(model: onnx.ModelProto) -> tuple[Finding, ...]:
    """Return every node that breaks a rule; empty for an explicit, symmetric graph."""
    graph = model.graph
    constants = constants_of(graph)
    makers = {name: node for node in graph.node for name in node.output}
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    bytes_in = {e.name for e in graph.input if e.type.tensor_type.elem_type == TensorProto.UINT8}
    found = []
    for node in graph.node:
        reasons = [*_check_bytes(node, bytes_in)]
        if node.op_type in (Q, DQ):
            reasons += _check_parameters(node, constants)
            reasons += _check_weight(node, constants, readers)
        if node.op_type == Q:
            reasons += _check_pair(node, readers)
        if node.op_type in WEIGHTED:
            reasons += _check_halves(node, constants, makers)
        found += [Finding("lint", node.name, node.op_type, reason) for reason in reasons]
    return tuple(found)


def _check_bytes(node: onnx.NodeProto, bytes_in: set[str]) -> Iterator[str]:
    if set(node.input) & bytes_in and node.op_type != "Cast":
        yield "reads the uint8 input, which TensorRT supports as input only; expected a Cast first"


def _check_parameters(node: onnx.NodeProto, constants: dict[str, NDArray[Any]]) -> Iterator[str]:
    scale = constants.get(node.input[1])
    if scale is None:
        yield "its scale is not a constant"
    elif not (np.isfinite(scale).all() and (scale > 0).all()):
        yield f"its scale is {scale.min()}; expected finite numbers above zero"
    if len(node.input) < 3 or not node.input[2]:
        yield "it has no zero point, so ONNX defaults to uint8; expected an int8 zero"
        return
    zero_point = constants.get(node.input[2])
    if zero_point is None:
        yield "its zero point is not a constant"
        return
    if zero_point.dtype == np.int32:
        yield "a quantized bias (int32); expected a bias in float"
    elif zero_point.dtype != np.int8:
        yield f"it quantizes to {zero_point.dtype}; expected int8"
    if (zero_point != 0).any():
        yield f"asymmetric: its zero point is {int(zero_point.flat[0])}; expected 0"
    if scale is not None and scale.size > 1 and not _is_constant(node, constants):
        yield "an activation has a scale for each channel; expected one"


def _is_constant(node: onnx.NodeProto, constants: dict[str, NDArray[Any]]) -> bool:
    return node.input[0] in constants


def _check_weight(
    node: onnx.NodeProto,
    constants: dict[str, NDArray[Any]],
    readers: dict[str, list[onnx.NodeProto]],
) -> Iterator[str]:
    if node.op_type == Q and _is_constant(node, constants):
        yield "a quantized weight is kept in float; expected int8 values and only DequantizeLinear"
    users = [reader for reader in readers.get(node.output[0], []) if reader.op_type in WEIGHTED]
    scale = constants.get(node.input[1])
    if node.op_type == DQ and _is_constant(node, constants) and scale is not None:
        axes = [a.i for a in node.attribute if a.name == "axis"] or [1]
        if scale.size > 1 and users and axes[0] != 0:
            yield f"a weight's channels are on axis {axes[0]}; expected 0"


def _check_pair(node: onnx.NodeProto, readers: dict[str, list[onnx.NodeProto]]) -> Iterator[str]:
    behind = {reader.op_type for reader in readers.get(node.output[0], [])}
    if behind != {DQ}:
        yield f"it feeds {', '.join(sorted(behind)) or 'the output'}; expected DequantizeLinear"


def _check_halves(
    node: onnx.NodeProto,
    constants: dict[str, NDArray[Any]],
    makers: dict[str, onnx.NodeProto],
) -> Iterator[str]:
    quantized = [name in makers and makers[name].op_type == DQ for name in node.input[:2]]
    if quantized == [True, False]:
        yield "its input is quantized but its weight is not: it would run in float"
    if quantized == [False, True]:
        yield "its weight is quantized but its input is not: it would run in float"
    if len(node.input) > 2 and node.input[2] in makers and makers[node.input[2]].op_type == DQ:
        yield "its bias is quantized; expected a bias in float"
