"""Edits of TFLite flatbuffers: the input's normalisation, the description inside the file."""

from __future__ import annotations

from typing import Any, Final, Literal

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.tools import flatbuffer_utils

from lesiontk.backends.backend import SPEC_KEY
from lesiontk.backends.input_quantization import InputQuantization
from lesiontk.errors import DataError

FOLDABLE: Final[dict[str, Literal["mul", "add"]]] = {"MUL": "mul", "ADD": "add"}
OPERATOR_NAMES = {
    value: name for name, value in vars(schema.BuiltinOperator).items() if isinstance(value, int)
}
TYPE_NAMES = {
    value: name.lower() for name, value in vars(schema.TensorType).items() if isinstance(value, int)
}


def read_model(content: bytes) -> Any:
    """Return the object form of a flatbuffer."""
    return flatbuffer_utils.read_model_from_bytearray(bytearray(content))


def dump_model(model: Any) -> bytes:
    """Return the flatbuffer of an object form."""
    return bytes(flatbuffer_utils.convert_object_to_bytearray(model))


def operator_name(model: Any, operator: Any) -> str:
    """Return an operator's name, such as ``CONV_2D``."""
    code = model.operatorCodes[operator.opcodeIndex]
    return str(OPERATOR_NAMES[max(code.builtinCode, code.deprecatedBuiltinCode)])


def constant(model: Any, graph: Any, tensor: int) -> np.ndarray[Any, np.dtype[Any]] | None:
    """Return a float32 constant's values, or None where the tensor is no float32 constant."""
    entry = graph.tensors[tensor]
    data = model.buffers[entry.buffer].data
    if data is None or len(data) == 0 or entry.type != schema.TensorType.FLOAT32:
        return None
    return np.frombuffer(bytes(data), np.float32)


def strip_normalisation(content: bytes) -> tuple[bytes, InputQuantization]:
    """Return the graph from the first tensor that no byte scale can express, and that scale.

    The float graph begins uint8 -> CAST -> [MUL by a scalar] -> [ADD of a constant]. As long as
    the real value of byte q is ``scale * (q - zero_point)`` with a whole zero point in 0..255, the
    operator belongs to the input's quantization and is taken out. The returned graph has a float32
    input in its place.
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


def set_byte_input(content: bytes, quantization: InputQuantization) -> bytes:
    """Return the graph with its float32 input turned into a quantized uint8 input.

    The QUANTIZE operator that follows then maps bytes to int8, exactly where the scales agree.
    """
    model = read_model(content)
    graph = model.subgraphs[0]
    (index,) = graph.inputs
    users = [op for op in graph.operators if index in list(op.inputs)]
    if [operator_name(model, op) for op in users] != ["QUANTIZE"]:
        names = [operator_name(model, op) for op in users]
        raise DataError(f"the quantized graph's input feeds {names}; expected one QUANTIZE.")
    tensor = graph.tensors[index]
    tensor.type = schema.TensorType.UINT8
    parameters = schema.QuantizationParametersT()
    parameters.scale = [quantization.scale]
    parameters.zeroPoint = [quantization.zero_point]
    tensor.quantization = parameters
    return dump_model(model)


def embed_spec(content: bytes, text: str) -> bytes:
    """Return the flatbuffer with `text` as the metadata entry ``lesiontk``."""
    model = read_model(content)
    model.metadata = [entry for entry in model.metadata or [] if entry.name.decode() != SPEC_KEY]
    buffer = schema.BufferT()
    buffer.data = np.frombuffer(text.encode(), np.uint8)
    model.buffers.append(buffer)
    entry = schema.MetadataT()
    entry.name = SPEC_KEY
    entry.buffer = len(model.buffers) - 1
    model.metadata.append(entry)
    return dump_model(model)


def extract_spec(content: bytes) -> str | None:
    """Return the text of the metadata entry ``lesiontk``, or None."""
    model = read_model(content)
    for entry in model.metadata or []:
        if entry.name.decode() == SPEC_KEY:
            return bytes(model.buffers[entry.buffer].data).decode()
    return None
