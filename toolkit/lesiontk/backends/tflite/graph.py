"""Edits of TFLite flatbuffers: the input's normalization, the description inside the file."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.tools import flatbuffer_utils

from lesiontk.backends.backend import SPEC_KEY
from lesiontk.backends.input_quantization import InputQuantization
from lesiontk.backends.operator_groups import GraphOperator, group_operators
from lesiontk.backends.quantized_tensors import STORED, QuantizedTensor
from lesiontk.errors import DataError

FOLDABLE: Final[dict[str, Literal["mul", "add"]]] = {"MUL": "mul", "ADD": "add"}
OPERATOR_NAMES = {
    value: name for name, value in vars(schema.BuiltinOperator).items() if isinstance(value, int)
}
TYPE_NAMES = {
    value: name.lower() for name, value in vars(schema.TensorType).items() if isinstance(value, int)
}
LOOPS = ("WHILE", "STABLEHLO_WHILE", "IF", "CALL", "CALL_ONCE")
"""Operators that run another graph of the file."""
SLACK = 2**22
"""Initial buffer size for a graph without its weights; it grows if necessary."""


def read_model(content: bytes) -> Any:
    """Return the object form of a flatbuffer."""
    model = flatbuffer_utils.read_model_from_bytearray(bytearray(content))
    for buffer in model.buffers:
        # Data outside of the flatbuffer proper is bytes, which would be packed one by one: minutes
        # for a large network.
        if isinstance(buffer.data, bytearray):
            buffer.data = np.frombuffer(buffer.data, np.uint8)
    return model


def dump_model(model: Any) -> bytes:
    """Return the flatbuffer of an object form."""
    weights = sum(len(buffer.data) for buffer in model.buffers if buffer.data is not None)
    # A sufficient initial size avoids copies when the buffer doubles.
    builder = flatbuffers.Builder(weights + SLACK)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())


def operator_name(model: Any, operator: Any) -> str:
    """Return an operator's name, such as ``CONV_2D``."""
    code = model.operatorCodes[operator.opcodeIndex]
    return str(OPERATOR_NAMES[max(code.builtinCode, code.deprecatedBuiltinCode)])


def check_no_loop(content: bytes, path: Path) -> None:
    """Raise `DataError` for a flatbuffer with loops or calls of its own graphs.

    Whether a loop ends is not known from the file, and no image classifier needs one.
    """
    model = schema.Model.GetRootAs(content, 0)
    for index in range(model.OperatorCodesLength()):
        code = model.OperatorCodes(index)
        kind = OPERATOR_NAMES.get(max(code.BuiltinCode(), code.DeprecatedBuiltinCode()))
        if kind in LOOPS:
            raise DataError(
                f"{path.name} has the operator {kind}, which may never end; expected a graph "
                "without loops."
            )


def constant(model: Any, graph: Any, tensor: int) -> np.ndarray[Any, np.dtype[Any]] | None:
    """Return a float32 constant's values, or None if the tensor is not a float32 constant."""
    entry = graph.tensors[tensor]
    data = model.buffers[entry.buffer].data
    if data is None or len(data) == 0 or entry.type != schema.TensorType.FLOAT32:
        return None
    return np.frombuffer(bytes(data), np.float32)


MOVING = ("RESHAPE", "SQUEEZE", "TRANSPOSE", "MAX_POOL_2D", "PAD", "PADV2", "MIRROR_PAD", "RELU",
          "RELU6", "RELU_N1_TO_1")  # fmt: skip
"""Operators that have no precision of their own."""


def group_layers(content: bytes) -> Mapping[str, tuple[str, ...]]:
    """Return the layers of a float graph after its input normalization, as `group_operators`."""
    model = read_model(content)
    graph = model.subgraphs[0]
    operators = [
        GraphOperator(
            graph.tensors[operator.outputs[0]].name.decode(),
            operator_name(model, operator),
            tuple(graph.tensors[index].name.decode() for index in operator.inputs if index >= 0),
        )
        for operator in graph.operators
    ]
    return group_operators(operators, MOVING, ignored=("SOFTMAX",))


def strip_normalization(content: bytes) -> tuple[bytes, InputQuantization]:
    """Return the graph without its input normalization, and the quantization that replaces it.

    The float graph begins uint8 -> CAST -> [MUL by a scalar] -> [ADD of a constant]. As long as
    the real value of byte q is ``scale * (q - zero_point)`` with an integer zero point in 0..255,
    the operator belongs to the input's quantization and is removed. The returned graph has a
    float32 input instead.
    """
    model = read_model(content)
    graph = model.subgraphs[0]
    operators = list(graph.operators)
    if operator_name(model, operators[0]) != "CAST":
        raise DataError("the float graph does not begin with a CAST of its uint8 input.")
    quantization = InputQuantization()
    current = operators.pop(0).outputs[0]
    while operators and (name := operator_name(model, operators[0])) in FOLDABLE:
        others = [tensor for tensor in operators[0].inputs if tensor != current]
        values = constant(model, graph, others[0]) if len(others) == 1 else None
        folded = None if values is None else quantization.after(FOLDABLE[name], values)
        if folded is None:
            break
        quantization = folded
        current = operators.pop(0).outputs[0]
    graph.operators = operators
    graph.inputs = [current]
    for signature in model.signatureDefs or []:
        signature.inputs[0].tensorIndex = current
    return dump_model(model), quantization


def set_byte_input(
    content: bytes, quantization: InputQuantization, *, to_float: bool = False
) -> bytes:
    """Return the graph with its float32 input replaced by a quantized uint8 input.

    The QUANTIZE operator that follows then maps bytes to int8, exactly if the scales are equal. It
    cannot map to int16; then a DEQUANTIZE is inserted before it, and before a first layer that
    stays in float, which `to_float` allows.
    """
    model = read_model(content)
    graph = model.subgraphs[0]
    (index,) = graph.inputs
    users = [op for op in graph.operators if index in list(op.inputs)]
    names = [operator_name(model, op) for op in users]
    if names != ["QUANTIZE"] and not to_float:
        raise DataError(f"the quantized graph's input feeds {names}; expected one QUANTIZE.")
    tensor = graph.tensors[index]
    parameters = schema.QuantizationParametersT()
    parameters.scale = [quantization.scale]
    parameters.zeroPoint = [quantization.zero_point]
    in_float = [
        user
        for name, user in zip(names, users, strict=True)
        if name != "QUANTIZE" or graph.tensors[user.outputs[0]].type != schema.TensorType.INT8
    ]
    if in_float:
        _insert_dequantize(model, graph, in_float)
    tensor.type = schema.TensorType.UINT8
    tensor.quantization = parameters
    return dump_model(model)


def _insert_dequantize(model: Any, graph: Any, readers: Sequence[Any]) -> None:
    """Insert a DEQUANTIZE between the graph's input and these readers of it."""
    (index,) = graph.inputs
    real = copy.copy(graph.tensors[index])
    real.name = f"{real.name.decode()}/real"
    graph.tensors.append(real)
    operator = schema.OperatorT()
    operator.opcodeIndex = find_dequantize(model)
    operator.inputs, operator.outputs = [index], [len(graph.tensors) - 1]
    graph.operators.insert(0, operator)
    for reader in readers:
        reader.inputs = [len(graph.tensors) - 1 if i == index else i for i in reader.inputs]


def find_dequantize(model: Any) -> int:
    """Return the index of DEQUANTIZE among a model's operator codes, added if necessary."""
    for index, code in enumerate(model.operatorCodes):
        kind = max(code.builtinCode, code.deprecatedBuiltinCode)
        if kind == schema.BuiltinOperator.DEQUANTIZE and code.version >= 2:
            return index
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.DEQUANTIZE
    code.version = 2  # version 1 was the first with uint8; converters write 2
    model.operatorCodes.append(code)
    return len(model.operatorCodes) - 1


def allow_any_scale(content: bytes) -> bytes:
    """Return the int16 graph with additions that accept scales other than powers of two.

    The schema's default is that all int16 scales are powers of two. With it, LiteRT's ADD and SUB
    refuse other scales, or use the nearest power.
    """
    model = read_model(content)
    for graph in model.subgraphs:
        for operator in graph.operators:
            if operator_name(model, operator) in ("ADD", "SUB"):
                operator.builtinOptions.potScaleInt16 = False
    return dump_model(model)


def quantized_activations(content: bytes) -> tuple[QuantizedTensor, ...]:
    """Return the quantized outputs of operators, and the input if quantized."""
    model = read_model(content)
    graph = model.subgraphs[0]
    written = [*graph.inputs, *(index for op in graph.operators for index in op.outputs)]
    found = []
    for index in dict.fromkeys(int(index) for index in written):
        tensor = graph.tensors[index]
        parameters = tensor.quantization
        if parameters is None or parameters.scale is None or len(parameters.scale) != 1:
            continue
        if TYPE_NAMES[tensor.type] not in STORED:
            continue
        scale, zero_point = float(parameters.scale[0]), int(parameters.zeroPoint[0])
        name = tensor.name.decode()
        found.append(QuantizedTensor(name, TYPE_NAMES[tensor.type], scale, zero_point))
    return tuple(found)


def drop_unused_buffers(model: Any) -> None:
    """Empty the buffers that neither a tensor nor a metadata entry refers to, in place."""
    used = {tensor.buffer for graph in model.subgraphs for tensor in graph.tensors}
    used |= {entry.buffer for entry in model.metadata or []}
    for index, buffer in enumerate(model.buffers):
        if index not in used:
            buffer.data = None


def set_metadata(content: bytes, name: str, data: bytes) -> bytes:
    """Return the flatbuffer with `data` as the metadata entry `name`, replacing an older one."""
    model = read_model(content)
    model.metadata = [entry for entry in model.metadata or [] if entry.name.decode() != name]
    drop_unused_buffers(model)
    buffer = schema.BufferT()
    buffer.data = np.frombuffer(data, np.uint8)
    model.buffers.append(buffer)
    entry = schema.MetadataT()
    entry.name = name
    entry.buffer = len(model.buffers) - 1
    model.metadata.append(entry)
    return dump_model(model)


def read_metadata(content: bytes, name: str) -> bytes | None:
    """Return the data of a metadata entry, or None."""
    model = schema.Model.GetRootAs(content, 0)  # the object form would copy every weight
    for number in range(model.MetadataLength()):
        entry = model.Metadata(number)
        if entry.Name() == name.encode():
            data = model.Buffers(entry.Buffer()).DataAsNumpy()
            return b"" if isinstance(data, int) else bytes(data)
    return None


def expose_activations(content: bytes) -> bytes:
    """Return the graph with every operator's output as a graph output, in order."""
    model = read_model(content)
    for graph in model.subgraphs:
        written = [int(index) for op in graph.operators for index in op.outputs]
        graph.outputs = list(dict.fromkeys([*written, *map(int, graph.outputs)]))
    return dump_model(model)


def embed_spec(content: bytes, text: str) -> bytes:
    """Return the flatbuffer with `text` as the metadata entry ``lesiontk``."""
    return set_metadata(content, SPEC_KEY, text.encode())


def extract_spec(content: bytes) -> bytes | None:
    """Return the text of the metadata entry ``lesiontk`` in UTF-8, or None."""
    return read_metadata(content, SPEC_KEY)
