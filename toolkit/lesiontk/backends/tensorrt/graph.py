"""Preparation of a float ONNX graph for TensorRT: dynamic batch, dense layers."""

from __future__ import annotations

from typing import Final

import onnx
from onnx import TensorProto, helper

from lesiontk.backends.onnx.constants import (
    constants_of,
    drop_unused_constants,
    replace_constant,
)
from lesiontk.errors import DataError

BATCH: Final = "batch"


def prepare_graph(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy with a dynamic batch, ``Gemm(transB=1)`` dense layers and no idle Reshape.

    A Gemm with weight [out, in] has its channels on axis 0, like a convolution; it is the form that
    every TensorRT from 8.5 on fuses with per-channel scales.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(onnx.shape_inference.infer_shapes(model))
    shapes = _static_shapes(copy.graph)
    _drop_idle_reshapes(copy.graph, shapes)
    _turn_dense_weights(copy.graph, shapes)
    _free_batch(copy.graph)
    drop_unused_constants(copy.graph)
    return copy


def _static_shapes(graph: onnx.GraphProto) -> dict[str, tuple[int, ...]]:
    shapes = {}
    for entry in (*graph.input, *graph.value_info, *graph.output):
        dims = entry.type.tensor_type.shape.dim
        if all(d.HasField("dim_value") for d in dims):
            shapes[entry.name] = tuple(d.dim_value for d in dims)
    return shapes


def _drop_idle_reshapes(graph: onnx.GraphProto, shapes: dict[str, tuple[int, ...]]) -> None:
    """Remove every Reshape whose output has its input's shape."""
    results = {entry.name for entry in graph.output}
    renamed: dict[str, str] = {}
    kept = []
    for node in graph.node:
        node.input[:] = [renamed.get(name, name) for name in node.input]
        source, result = node.input[0], node.output[0]
        idle = node.op_type == "Reshape" and shapes.get(source, ()) == shapes.get(result)
        if idle and result not in results:
            renamed[result] = source
        else:
            kept.append(node)
    del graph.node[:]
    graph.node.extend(kept)


def _turn_dense_weights(graph: onnx.GraphProto, shapes: dict[str, tuple[int, ...]]) -> None:
    constants = constants_of(graph)
    for node in graph.node:
        if node.op_type not in ("MatMul", "Gemm") or node.input[1] not in constants:
            continue
        weight = constants[node.input[1]]
        attributes = {entry.name: helper.get_attribute_value(entry) for entry in node.attribute}
        plain = all(attributes.get(name, 1.0) == 1.0 for name in ("alpha", "beta"))
        flat = weight.ndim == 2 and len(shapes.get(node.input[0], ())) == 2
        if not plain or not flat or attributes.get("transA", 0):
            raise DataError(
                f"{node.op_type} {node.name} is not a plain dense layer (weight "
                f"{list(weight.shape)}, {attributes}); expected the product of a matrix of images "
                "and a weight."
            )
        if not attributes.get("transB", 0):
            weight = weight.T
            node.input[1] = replace_constant(
                graph, f"{node.input[1]}/turned", weight, like=node.input[1]
            )
        node.op_type = "Gemm"
        del node.attribute[:]
        node.attribute.append(helper.make_attribute("transB", 1))


def _free_batch(graph: onnx.GraphProto) -> None:
    """Make the first dimension of input and outputs dynamic."""
    constants = constants_of(graph)
    for node in graph.node:
        if node.op_type == "Reshape":
            target = constants.get(node.input[1])
            if target is None or target.size == 0 or int(target[0]) not in (-1, 0, 1):
                raise DataError(f"Reshape {node.name} mixes the images of a batch.")
            free = target.copy()
            free[0] = 0  # the batch size of the input
            node.input[1] = replace_constant(graph, f"{node.input[1]}/free", free)
    del graph.value_info[:]
    for entry in (*graph.input, *graph.output):
        entry.type.tensor_type.shape.dim[0].Clear()
        entry.type.tensor_type.shape.dim[0].dim_param = BATCH


def input_shape(model: onnx.ModelProto) -> tuple[int, ...]:
    """Return height, width and channels of the uint8 input. Raises `DataError` for others."""
    entry = model.graph.input[0]
    dims = [d.dim_value for d in entry.type.tensor_type.shape.dim]
    if entry.type.tensor_type.elem_type != TensorProto.UINT8 or len(dims) != 4 or dims[3] != 3:
        raise DataError(
            f"the graph's input is {TensorProto.DataType.Name(entry.type.tensor_type.elem_type)} "
            f"{dims}; expected UINT8 [{BATCH}, height, width, 3]."
        )
    return tuple(dims[1:])
