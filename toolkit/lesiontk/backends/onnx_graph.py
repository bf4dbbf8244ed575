"""Edits of ONNX graphs: the input's normalisation, extra outputs, the description in the file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from lesiontk.backends.backend import SPEC_KEY
from lesiontk.errors import DataError

INPUT = "image"
OUTPUT = "probabilities"


@dataclass(frozen=True, slots=True)
class StrippedInput:
    """The tensor that took the input's place; byte q stands for ``scale * (q - zero_point)``.

    `shape` is the input's own, NHWC; `permutation` leads to the tensor's layout, if it differs.
    """

    tensor: str
    scale: float
    zero_point: int
    shape: tuple[int, ...]
    permutation: tuple[int, ...] | None


def rename_border(model: onnx.ModelProto) -> None:
    """Call the graph's input ``image`` and its output ``probabilities``, in place."""
    graph = model.graph
    names = {graph.input[0].name: INPUT, graph.output[0].name: OUTPUT}
    for node in graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
    graph.input[0].name = INPUT
    graph.output[0].name = OUTPUT


def strip_normalisation(model: onnx.ModelProto) -> StrippedInput:
    """Take Cast -> [Mul by a scalar] -> [Add of a constant] -> [Transpose] off the front, in place.

    An operator is taken only while the real value of byte q stays ``scale * (q - zero_point)`` with
    a whole zero point in 0..255. The graph's input becomes the float32 tensor behind them.
    """
    graph = model.graph
    constants = {entry.name: numpy_helper.to_array(entry) for entry in graph.initializer}
    producers = {name: node for node in graph.node for name in node.input}
    node = producers.get(INPUT)
    if node is None or node.op_type != "Cast":
        raise DataError("the float graph does not begin with a Cast of its uint8 input.")
    scale, offset, current = 1.0, 0.0, node.output[0]
    graph.node.remove(node)
    while (node := producers.get(current)) is not None and node.op_type in ("Mul", "Add"):
        others = [name for name in node.input if name != current]
        values = constants.get(others[0]) if len(others) == 1 else None
        if values is None or np.ptp(values) > 0:
            break
        value = float(values.flat[0])
        new = (scale * value, offset * value) if node.op_type == "Mul" else (scale, offset + value)
        zero_point = -new[1] / new[0]
        if abs(zero_point - round(zero_point)) > 1e-4 or not 0 <= round(zero_point) <= 255:
            break
        scale, offset = new
        current = node.output[0]
        graph.node.remove(node)
    shape = tuple(d.dim_value for d in graph.input[0].type.tensor_type.shape.dim)
    permutation = None
    if node is not None and node.op_type == "Transpose":  # bytes are turned cheaper than floats
        permutation = tuple(node.attribute[0].ints)
        current = node.output[0]
        graph.node.remove(node)
    inner = [shape[axis] for axis in permutation] if permutation else list(shape)
    graph.input[0].CopyFrom(helper.make_tensor_value_info(current, TensorProto.FLOAT, inner))
    return StrippedInput(current, scale, round(-offset / scale), shape, permutation)


def set_byte_input(model: onnx.ModelProto, stripped: StrippedInput) -> None:
    """Feed uint8 images straight into the input's DequantizeLinear, in place.

    Quantization put QuantizeLinear -> DequantizeLinear behind the float input; with the scale and
    zero point of the normalisation the bytes themselves are the quantized values.
    """
    graph = model.graph
    users = [node for node in graph.node if stripped.tensor in node.input]
    if [node.op_type for node in users] != ["QuantizeLinear"]:
        raise DataError(
            f"the quantized graph's input feeds {[n.op_type for n in users]}; expected one "
            "QuantizeLinear."
        )
    (quantize,) = users
    constants = {entry.name: numpy_helper.to_array(entry) for entry in graph.initializer}
    scale, zero_point = constants[quantize.input[1]], constants[quantize.input[2]]
    if zero_point.dtype != np.uint8 or int(zero_point) != stripped.zero_point:
        raise DataError(
            f"the input was quantized with zero point {zero_point} ({zero_point.dtype}); expected "
            f"uint8 {stripped.zero_point}."
        )
    if abs(float(scale) - stripped.scale) > 1e-6 * stripped.scale:
        raise DataError(f"the input was quantized with scale {scale}; expected {stripped.scale}.")
    graph.node.remove(quantize)
    if stripped.permutation:
        turn = helper.make_node(
            "Transpose", [INPUT], [quantize.output[0]], "turn_image", perm=stripped.permutation
        )
        graph.node.insert(0, turn)
    else:
        for node in graph.node:
            node.input[:] = [INPUT if name == quantize.output[0] else name for name in node.input]
    value = helper.make_tensor_value_info(INPUT, TensorProto.UINT8, stripped.shape)
    graph.input[0].CopyFrom(value)


def expose_tensors(model: onnx.ModelProto) -> tuple[onnx.ModelProto, list[str]]:
    """Return a copy in which each float32 tensor that a node makes is an output; their names."""
    copy = onnx.ModelProto()
    copy.CopyFrom(onnx.shape_inference.infer_shapes(model))
    known = {entry.name: entry for entry in copy.graph.value_info}
    present = {entry.name for entry in copy.graph.output}
    names = [
        name
        for node in copy.graph.node
        for name in node.output
        if name in present
        or (name in known and known[name].type.tensor_type.elem_type == TensorProto.FLOAT)
    ]
    copy.graph.output.extend(known[name] for name in names if name not in present)
    return copy, names


def embed_spec(model: onnx.ModelProto, text: str) -> None:
    """Put the description into the model's metadata properties, in place."""
    kept = [entry for entry in model.metadata_props if entry.key != SPEC_KEY]
    del model.metadata_props[:]
    model.metadata_props.extend(kept)
    entry = model.metadata_props.add()
    entry.key, entry.value = SPEC_KEY, text


def weights_by_type(model: onnx.ModelProto) -> dict[str, int]:
    """Return bytes of initializers by element type."""
    sizes: dict[str, int] = {}
    for entry in model.graph.initializer:
        kind = TensorProto.DataType.Name(entry.data_type).lower()
        kind = {"float": "float32"}.get(kind, kind)
        sizes[kind] = sizes.get(kind, 0) + numpy_helper.to_array(entry).nbytes
    return sizes


def quantized_operators(model: onnx.ModelProto) -> tuple[list[Any], list[Any]]:
    """Return (quantized nodes, float nodes).

    A node is quantized if what it computes from comes through DequantizeLinear and goes into
    QuantizeLinear: that is what a runtime replaces by an integer kernel. Q/DQ nodes themselves and
    what moves the input's bytes are in neither list.
    """
    graph = model.graph
    makers = {name: node.op_type for node in graph.node for name in node.output}
    readers: dict[str, list[str]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node.op_type)
    constants = {entry.name for entry in graph.initializer}
    weighted = ("Conv", "Gemm", "MatMul", "ConvTranspose")
    quantized: list[Any] = []
    floating: list[Any] = []
    for node in graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear") or INPUT in node.input:
            continue
        sources = [name for name in node.input if name and name not in constants]
        float_weight = node.op_type in weighted and node.input[1] in constants
        is_quantized = (
            not float_weight
            and all(makers.get(name) == "DequantizeLinear" for name in sources)
            and all(
                set(readers.get(name, ["output"])) == {"QuantizeLinear"} for name in node.output
            )
        )
        (quantized if is_quantized else floating).append(node)
    return quantized, floating
