"""Edits of ONNX graphs: the input's normalization, extra outputs, the description in the file."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from lesiontk.backends.backend import SPEC_KEY
from lesiontk.backends.input_quantization import InputQuantization
from lesiontk.backends.onnx.tensor_sizes import check_tensor_sizes
from lesiontk.backends.operator_groups import GraphOperator, group_operators
from lesiontk.backends.quantized_tensors import QuantizedTensor
from lesiontk.errors import DataError

FOLDABLE: Final[dict[str, Literal["mul", "add"]]] = {"Mul": "mul", "Add": "add"}
INPUT = "image"
OUTPUT = "probabilities"
LOOPS: Final = ("Loop", "Scan")


@dataclass(frozen=True, slots=True)
class StrippedInput:
    """The tensor that replaced the input, and the quantization of its bytes.

    `shape` is the input's shape, NHWC; `permutation` maps it to the tensor's layout, if it differs.
    """

    tensor: str
    quantization: InputQuantization
    shape: tuple[int, ...]
    permutation: tuple[int, ...] | None


def rename_graph_io(model: onnx.ModelProto) -> None:
    """Rename the graph's input to ``image`` and its output to ``probabilities``, in place."""
    graph = model.graph
    names = {graph.input[0].name: INPUT, graph.output[0].name: OUTPUT}
    for node in graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
    graph.input[0].name = INPUT
    graph.output[0].name = OUTPUT


def name_canonically(model: onnx.ModelProto) -> None:
    """Order and name nodes, tensors and constants by the graph's structure alone, in place.

    Engines of equal structure can then be compared. Nodes are in the order in which the output
    needs them; the numbers that tf2onnx appends after ``__`` are removed.
    """
    graph = model.graph
    nodes = _order_nodes(graph)
    graph_io = {entry.name: entry.name for entry in (*graph.input, *graph.output)}
    constants = {entry.name: entry for entry in graph.initializer}
    tensors = dict(graph_io)
    taken = set(graph_io)
    for node in nodes:
        for name in (*node.input, *node.output):
            if name and name not in tensors:
                tensors[name] = _free_name(name, taken)
    labels: set[str] = set()
    for node in nodes:
        node.input[:] = [tensors.get(name, name) for name in node.input]
        node.output[:] = [tensors.get(name, name) for name in node.output]
        node.name = _free_name(node.name or node.op_type, labels)
    for name, entry in constants.items():
        entry.name = tensors.get(name, name)
    ordered = [constants[name] for name in tensors if name in constants]
    del graph.node[:], graph.initializer[:], graph.value_info[:]
    graph.node.extend(nodes)
    graph.initializer.extend(ordered)


def _order_nodes(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    """Return copies of the nodes that the outputs need, in topological order."""
    makers = {name: node for node in graph.node for name in node.output}
    ordered: dict[str, onnx.NodeProto] = {}
    waiting = [entry.name for entry in reversed(graph.output)]
    while waiting:
        node = makers.get(waiting[-1])
        if node is None or node.output[0] in ordered:
            waiting.pop()
            continue
        missing = [n for n in node.input if n in makers and makers[n].output[0] not in ordered]
        if missing:
            waiting.extend(reversed(missing))
            continue
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        ordered[node.output[0]] = copy
    return list(ordered.values())


def _free_name(name: str, taken: set[str]) -> str:
    """Return the name without its counter, numbered if it is taken."""
    base = re.sub(r"__\d+", "", name)
    free, number = base, 1
    while free in taken:
        free, number = f"{base}_{number}", number + 1
    taken.add(free)
    return free


ACTIVATIONS = ("Relu", "Clip")

MOVING = (*ACTIVATIONS, "MaxPool", "Transpose", "Squeeze", "Reshape", "Flatten", "Pad")
"""Operators that have no precision of their own."""


def group_layers(model: onnx.ModelProto) -> Mapping[str, tuple[str, ...]]:
    """Return the layers of a float graph after its input normalization, as `group_operators`."""
    operators = [GraphOperator(n.output[0], n.op_type, tuple(n.input)) for n in model.graph.node]
    return group_operators(operators, MOVING, ignored=("Softmax",))


def separate_weights(model: onnx.ModelProto) -> None:
    """Give each layer its own copy of weights and bias, in place.

    A layer that is called twice would share them; quantized, they depend on the input scale of each
    call, and ONNX Runtime cannot load a graph in which two integer convolutions read one weight.
    """
    constants = {entry.name: entry for entry in model.graph.initializer}
    taken: set[str] = set()
    for node in model.graph.node:
        if node.op_type not in ("Conv", "Gemm", "MatMul"):
            continue
        for place in range(1, len(node.input)):
            name = node.input[place]
            if name in taken:
                own = onnx.TensorProto()
                own.CopyFrom(constants[name])
                own.name = f"{name}/{node.name or node.output[0]}"
                model.graph.initializer.append(own)
                node.input[place] = own.name
            elif name in constants:
                taken.add(name)


def strip_normalization(model: onnx.ModelProto) -> StrippedInput:
    """Remove Cast -> [Mul by a scalar] -> [Add of a constant] -> [Transpose] at the input.

    An operator is removed only while the real value of byte q is ``scale * (q - zero_point)`` with
    an integer zero point in 0..255. The graph's input becomes the float32 tensor after them.
    """
    graph = model.graph
    constants = {entry.name: numpy_helper.to_array(entry) for entry in graph.initializer}
    producers = {name: node for node in graph.node for name in node.input}
    node = producers.get(INPUT)
    if node is None or node.op_type != "Cast":
        raise DataError("the float graph does not begin with a Cast of its uint8 input.")
    quantization, current = InputQuantization(), node.output[0]
    graph.node.remove(node)
    while (node := producers.get(current)) is not None and node.op_type in FOLDABLE:
        others = [name for name in node.input if name != current]
        values = constants.get(others[0]) if len(others) == 1 else None
        folded = None if values is None else quantization.after(FOLDABLE[node.op_type], values)
        if folded is None:
            break
        quantization = folded
        current = node.output[0]
        graph.node.remove(node)
    shape = tuple(d.dim_value for d in graph.input[0].type.tensor_type.shape.dim)
    permutation = None
    if node is not None and node.op_type == "Transpose":  # transposing bytes is cheaper than floats
        permutation = tuple(node.attribute[0].ints)
        current = node.output[0]
        graph.node.remove(node)
    inner = [shape[axis] for axis in permutation] if permutation else list(shape)
    graph.input[0].CopyFrom(helper.make_tensor_value_info(current, TensorProto.FLOAT, inner))
    return StrippedInput(current, quantization, shape, permutation)


def set_byte_input(
    model: onnx.ModelProto, stripped: StrippedInput, *, to_float: bool = False
) -> None:
    """Feed uint8 images straight into the input's DequantizeLinear, in place.

    Quantization inserted QuantizeLinear -> DequantizeLinear after the float input; with the scale
    and zero point of the normalization the bytes themselves are the quantized values. If the first
    layer stays in float, which `to_float` allows, a DequantizeLinear is inserted instead.
    """
    graph = model.graph
    users = [node for node in graph.node if stripped.tensor in node.input]
    kinds = [node.op_type for node in users]
    if to_float and "QuantizeLinear" not in kinds:
        _dequantize_input(model, stripped)
        return
    if kinds != ["QuantizeLinear"]:
        first = ", ".join(dict.fromkeys(kind for kind in kinds if kind != "QuantizeLinear"))
        raise DataError(
            f"the images go to {first or 'several operators'}, which ONNX Runtime does not compute "
            "in int8; expected a layer with weights first. A Resizing is dropped from a model that "
            "gets its images in that size (--set data.image_size=…); or use tflite:int8."
        )
    (quantize,) = users
    constants = {entry.name: numpy_helper.to_array(entry) for entry in graph.initializer}
    scale, zero_point = constants[quantize.input[1]], constants[quantize.input[2]]
    if zero_point.dtype != np.uint8 or int(zero_point) != stripped.quantization.zero_point:
        raise DataError(
            f"the input was quantized with zero point {zero_point} ({zero_point.dtype}); expected "
            f"uint8 {stripped.quantization.zero_point}."
        )
    if abs(float(scale) - stripped.quantization.scale) > 1e-6 * stripped.quantization.scale:
        raise DataError(
            f"the input was quantized with scale {scale}; expected {stripped.quantization.scale}."
        )
    graph.node.remove(quantize)
    if stripped.permutation:
        graph.node.insert(0, _turn_image(stripped, quantize.output[0]))
    else:
        for node in graph.node:
            node.input[:] = [INPUT if name == quantize.output[0] else name for name in node.input]
    value = helper.make_tensor_value_info(INPUT, TensorProto.UINT8, stripped.shape)
    graph.input[0].CopyFrom(value)


def _turn_image(stripped: StrippedInput, output: str) -> onnx.NodeProto:
    return helper.make_node("Transpose", [INPUT], [output], "turn_image", perm=stripped.permutation)


def _dequantize_input(model: onnx.ModelProto, stripped: StrippedInput) -> None:
    """Convert the bytes of the image to the float32 tensor that the first layer reads."""
    graph = model.graph
    parameters = {
        "image_scale": np.array(stripped.quantization.scale, np.float32),
        "image_zero_point": np.array(stripped.quantization.zero_point, np.uint8),
    }
    graph.initializer.extend(numpy_helper.from_array(v, name) for name, v in parameters.items())
    turned = "image_turned" if stripped.permutation else INPUT
    nodes = [_turn_image(stripped, turned)] if stripped.permutation else []
    nodes.append(
        helper.make_node(
            "DequantizeLinear", [turned, *parameters], [stripped.tensor], "dequantize_image"
        )
    )
    for node in reversed(nodes):
        graph.node.insert(0, node)
    value = helper.make_tensor_value_info(INPUT, TensorProto.UINT8, stripped.shape)
    graph.input[0].CopyFrom(value)


def expose_tensors(model: onnx.ModelProto) -> tuple[onnx.ModelProto, list[str]]:
    """Return a copy in which each node's float output is a graph output, and their names.

    Dequantized constants are excluded, and so are tensors that only an activation reads: runtimes
    fuse them with the activation, and no quantizer needs their range.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(onnx.shape_inference.infer_shapes(model))
    known = {entry.name: entry for entry in copy.graph.value_info}
    present = {entry.name for entry in copy.graph.output}
    constants = {entry.name for entry in copy.graph.initializer}
    kinds = (TensorProto.FLOAT, TensorProto.FLOAT16)
    readers: dict[str, list[str]] = {}
    for node in copy.graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node.op_type)
    fused = [[kind] for kind in ACTIVATIONS]
    names = [
        name
        for node in copy.graph.node
        if not (node.op_type == "DequantizeLinear" and node.input[0] in constants)
        for name in node.output
        if name in present
        or (
            name in known
            and known[name].type.tensor_type.elem_type in kinds
            and readers.get(name) not in fused
        )
    ]
    copy.graph.output.extend(known[name] for name in names if name not in present)
    return copy, names


def embed_spec(model: onnx.ModelProto, text: str) -> None:
    """Store the description in the model's metadata properties, in place."""
    kept = [entry for entry in model.metadata_props if entry.key != SPEC_KEY]
    del model.metadata_props[:]
    model.metadata_props.extend(kept)
    entry = model.metadata_props.add()
    entry.key, entry.value = SPEC_KEY, text


def check_closed(path: Path) -> None:
    """Raise `DataError` for an ONNX file with external data, loops or huge tensors.

    Whether a loop ends is not known from the file, and no image classifier needs one.
    """
    try:
        model = onnx.load(path, load_external_data=False)
    except Exception as error:  # protobuf does not document its types
        raise DataError(f"{path.name} is no model ONNX Runtime can load: {error}") from error
    for node in _list_nodes(model):
        if node.op_type in LOOPS:
            raise DataError(
                f"{path.name} has the operator {node.op_type} ({node.name}), which may never "
                "end; expected a graph without loops."
            )
    for tensor in _list_tensors(model):
        if tensor.data_location == TensorProto.EXTERNAL:
            others = [entry.value for entry in tensor.external_data if entry.key == "location"]
            raise DataError(
                f"{path.name} keeps weights in {', '.join(others) or 'another file'}; expected all "
                "in one file: load it with onnx.load and save it with onnx.save."
            )
    check_tensor_sizes(model, path)


def _list_nodes(model: onnx.ModelProto) -> Iterator[onnx.NodeProto]:
    """Yield the nodes of a model, of its functions, and of the graphs in nodes."""
    yield from walk_nodes(model.graph.node)
    for function in model.functions:
        yield from walk_nodes(function.node)


def walk_nodes(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    """Yield the nodes, and those of the graphs within them, at any depth."""
    waiting = [*nodes]
    while waiting:
        node = waiting.pop()
        yield node
        waiting += [inner for graph in _list_graphs(node) for inner in graph.node]


def _list_graphs(node: onnx.NodeProto) -> list[onnx.GraphProto]:
    return [graph for a in node.attribute for graph in (a.g, *a.graphs)]


def _list_tensors(model: onnx.ModelProto) -> Iterator[TensorProto]:
    """Yield the constants of a model, at any level."""
    graphs, sparse = [model.graph], []
    for node in _list_nodes(model):
        graphs += _list_graphs(node)
        for attribute in node.attribute:
            yield from (attribute.t, *attribute.tensors)
            sparse += [attribute.sparse_tensor, *attribute.sparse_tensors]
    for graph in graphs:
        yield from graph.initializer
        sparse += graph.sparse_initializer
    for tensor in sparse:
        yield from (tensor.values, tensor.indices)


def weights_by_type(model: onnx.ModelProto) -> dict[str, int]:
    """Return bytes of initializers by element type; scales and zero points do not count."""
    parameters = {
        name
        for node in model.graph.node
        if node.op_type in ("QuantizeLinear", "DequantizeLinear")
        for name in node.input[1:]
    }
    sizes: dict[str, int] = {}
    for entry in model.graph.initializer:
        if entry.name in parameters:
            continue
        kind = TensorProto.DataType.Name(entry.data_type).lower()
        kind = {"float": "float32"}.get(kind, kind)
        sizes[kind] = sizes.get(kind, 0) + numpy_helper.to_array(entry).nbytes
    return sizes


def check_no_float_weights(model: onnx.ModelProto, but: Collection[str] = ()) -> None:
    """Raise `DataError` if a quantized graph has float weights or unused constants.

    Layers whose output is named in `but` may have float weights.
    """
    graph = model.graph
    makers = {name: node for node in graph.node for name in node.output}
    constants = {entry.name: entry for entry in graph.initializer}
    for node in graph.node:
        if node.op_type not in ("Conv", "Gemm", "MatMul", "ConvTranspose") or node.output[0] in but:
            continue
        weight = node.input[1]
        maker = makers.get(weight)
        stored = constants.get(maker.input[0]) if maker is not None else None
        dequantized = maker is not None and maker.op_type == "DequantizeLinear"
        if weight in constants or (dequantized and stored is None):
            raise DataError(f"{node.op_type} {node.name} has float weights; expected int8.")
    read = {name for node in graph.node for name in node.input}
    left = [name for name in constants if name not in read]
    if left:
        raise DataError(f"the graph contains {', '.join(left[:3])}, which no node reads.")


def quantized_operators(model: onnx.ModelProto) -> tuple[list[Any], list[Any]]:
    """Return (quantized nodes, float nodes).

    A node is quantized if its inputs come from DequantizeLinear and its output goes to
    QuantizeLinear: a runtime replaces such a pattern by an integer kernel. Q/DQ nodes and the
    nodes of the input's layout are in neither list.
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


def quantized_activations(model: onnx.ModelProto) -> tuple[QuantizedTensor, ...]:
    """Return the activations that come from DequantizeLinear with one scale.

    Each has the name of the tensor that was quantized; the input keeps its name.
    """
    graph = model.graph
    constants = {entry.name: entry for entry in graph.initializer}
    sources = {n.output[0]: n.input[0] for n in graph.node if n.op_type == "QuantizeLinear"}
    found: dict[str, QuantizedTensor] = {}
    for node in graph.node:
        if node.op_type != "DequantizeLinear" or node.input[0] in constants:
            continue
        scale = numpy_helper.to_array(constants[node.input[1]])
        if scale.size != 1:
            continue
        zero_point = np.zeros((), np.uint8)  # ONNX's default
        if len(node.input) > 2 and node.input[2]:
            zero_point = numpy_helper.to_array(constants[node.input[2]])
        name = sources.get(node.input[0], node.input[0].removesuffix("_QuantizeLinear_Output"))
        found[name] = QuantizedTensor(
            name, str(zero_point.dtype), float(scale.flat[0]), int(zero_point.flat[0])
        )
    return tuple(found.values())
