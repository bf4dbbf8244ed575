"""From the project's float ONNX graph to one that TensorRT reads well: batch, dense layers."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from lesiontk.backends.onnx_graph import INPUT
from lesiontk.errors import DataError

BATCH: Final = "batch"
NORMALISING: Final = ("Cast", "Mul", "Add", "Sub", "Div", "Transpose", "Pad")


def prepare_graph(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy with a free batch, dense layers as ``Gemm(transB=1)`` and no idle Reshape.

    A Gemm whose weight is [out, in] has its channels on axis 0, as a convolution's; of Gemm and
    MatMul, it is the form that every TensorRT from 8.5 on fuses with per-channel scales.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(onnx.shape_inference.infer_shapes(model))
    shapes = _static_shapes(copy.graph)
    _drop_idle_reshapes(copy.graph, shapes)
    _turn_dense_weights(copy.graph, shapes)
    _free_batch(copy.graph)
    drop_unused_constants(copy.graph)
    return copy


def constants_of(graph: onnx.GraphProto) -> dict[str, NDArray[Any]]:
    """Return name -> value of the graph's constants."""
    return {entry.name: numpy_helper.to_array(entry) for entry in graph.initializer}


def normalised_tensors(graph: onnx.GraphProto) -> set[str]:
    """Return the tensors that the input's bytes become before the first layer.

    They are made of the input and constants alone: casts, scales, offsets, a change of layout.
    """
    constants = {entry.name for entry in graph.initializer}
    found = {INPUT}
    for node in graph.node:
        varying = [name for name in node.input if name and name not in constants]
        if node.op_type in NORMALISING and varying and set(varying) <= found:
            found.update(node.output)
    return found


def replace_constant(
    graph: onnx.GraphProto, name: str, value: NDArray[Any], *, like: str | None = None
) -> str:
    """Add a constant called `name` (with the first free number where it is taken); return it.

    With `like` it is put behind that constant, so that files keep their order.
    """
    taken = {entry.name for entry in graph.initializer}
    free, number = name, 1
    while free in taken:
        free, number = f"{name}_{number}", number + 1
    entry = numpy_helper.from_array(np.asarray(value, order="C"), free)
    places = [i for i, e in enumerate(graph.initializer) if e.name == like]
    if places:
        graph.initializer.insert(places[0] + 1, entry)
    else:
        graph.initializer.append(entry)
    return free


def drop_unused_constants(graph: onnx.GraphProto) -> None:
    """Remove constants that no node reads, in place."""
    read = {name for node in graph.node for name in node.input}
    kept = [entry for entry in graph.initializer if entry.name in read]
    del graph.initializer[:]
    graph.initializer.extend(kept)


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
                f"{node.op_type} {node.name} is no plain dense layer (weight "
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
    """Let the first dimension of input and outputs be any number of images."""
    constants = constants_of(graph)
    for node in graph.node:
        if node.op_type == "Reshape":
            target = constants.get(node.input[1])
            if target is None or target.size == 0 or int(target[0]) not in (-1, 0, 1):
                raise DataError(f"Reshape {node.name} does not keep images apart.")
            free = target.copy()
            free[0] = 0  # as many as come in
            node.input[1] = replace_constant(graph, f"{node.input[1]}/free", free)
    del graph.value_info[:]
    for entry in (*graph.input, *graph.output):
        entry.type.tensor_type.shape.dim[0].Clear()
        entry.type.tensor_type.shape.dim[0].dim_param = BATCH


def input_shape(model: onnx.ModelProto) -> tuple[int, ...]:
    """Return height, width and channels of the graph's uint8 input; `DataError` for another."""
    entry = model.graph.input[0]
    dims = [d.dim_value for d in entry.type.tensor_type.shape.dim]
    if entry.type.tensor_type.elem_type != TensorProto.UINT8 or len(dims) != 4 or dims[3] != 3:
        raise DataError(
            f"the graph's input is {TensorProto.DataType.Name(entry.type.tensor_type.elem_type)} "
            f"{dims}; expected UINT8 [{BATCH}, height, width, 3]."
        )
    return tuple(dims[1:])
