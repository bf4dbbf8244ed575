"""A float32 graph, or single layers of one, in half precision: weights and activations.

TensorRT 11 has no builder flag for it, and older ones do not need it: a strongly typed network
computes in the types of the graph. The input normalization stays in float32 (half has steps of 1/16
at 128), and so does Softmax, whose output is the engine's.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import onnx
from onnx import TensorProto, helper

from lesiontk.backends.onnx.constants import (
    constants_of,
    drop_unused_constants,
    normalized_tensors,
    replace_constant,
)
from lesiontk.errors import DataError

GREATEST = float(np.finfo(np.float16).max)


def convert_to_float16(model: onnx.ModelProto, only: Collection[str] | None = None) -> None:
    """Convert a prepared float32 graph to float16, in place, or `only` the producers of these.

    Raises `DataError` if a weight exceeds float16.
    """
    graph = model.graph
    graph_io = normalized_tensors(graph)
    constants = constants_of(graph)
    results = {entry.name for entry in graph.output}
    halved: dict[str, str] = {}
    wide = set(graph_io)  # tensors that stay in float32
    nodes: list[onnx.NodeProto] = []

    def cast(tensor: str, kind: int, suffix: str) -> str:
        name = f"{tensor}/{suffix}"
        if name not in halved:
            halved[name] = name
            nodes.append(helper.make_node("Cast", [tensor], [name], f"{name}/cast", to=kind))
        return name

    def halve(name: str) -> str:
        if name not in halved:
            value = constants[name]
            if not (np.abs(value) <= GREATEST).all():
                raise DataError(
                    f"constant {name} reaches {np.abs(value).max():.3g}; float16's limit is "
                    f"{GREATEST:.0f}."
                )
            halved[name] = replace_constant(
                graph, f"{name}/float16", value.astype(np.float16), like=name
            )
        return halved[name]

    for node in graph.node:
        if node.output[0] in graph_io:
            nodes.append(node)
            continue
        precise = node.op_type == "Softmax" or bool(results & set(node.output))
        precise |= only is not None and node.output[0] not in only
        if node.op_type == "Cast" and not precise:
            _cast_to_half(node)
        for index, name in enumerate(node.input):
            if node.op_type == "Resize" and index > 0:
                continue  # sizes and scales are float32 in any graph
            if name in constants:
                if constants[name].dtype == np.float32 and not precise:
                    node.input[index] = halve(name)
            elif name and (name in wide) != precise:
                kind, suffix = (TensorProto.FLOAT, "float32") if precise else (
                    TensorProto.FLOAT16, "float16")  # fmt: skip
                node.input[index] = cast(name, kind, suffix)
        if precise:
            wide.update(node.output)
        nodes.append(node)
    del graph.node[:]
    graph.node.extend(nodes)
    drop_unused_constants(graph)


def _cast_to_half(node: onnx.NodeProto) -> None:
    """Change a Cast of a comparison's result to float32 into one to float16, as all others."""
    for attribute in node.attribute:
        if attribute.name == "to" and attribute.i == TensorProto.FLOAT:
            attribute.i = TensorProto.FLOAT16


def list_half_tensors(graph: onnx.GraphProto) -> set[str]:
    """Return the float16 tensors, including constants, of a graph converted here."""
    half = {entry.name for entry in graph.initializer if entry.data_type == TensorProto.FLOAT16}
    for node in graph.node:
        if node.op_type == "Cast":
            is_half = helper.get_node_attr_value(node, "to") == TensorProto.FLOAT16
        else:
            is_half = bool(half & set(node.input))
        if is_half:
            half.update(node.output)
    return half
