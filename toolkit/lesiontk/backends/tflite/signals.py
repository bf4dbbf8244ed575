"""Pooled features and logits as further outputs of a TFLite classifier."""

from __future__ import annotations

import copy
from typing import Any

from ai_edge_litert import schema_py_generated as schema

from lesiontk.backends.backend import FEATURES, LOGITS
from lesiontk.backends.tflite.graph import (
    dump_model,
    find_dequantize,
    operator_name,
    read_model,
)
from lesiontk.errors import DataError

POOLING = ("MEAN", "AVERAGE_POOL_2D")


def add_signal_outputs(content: bytes) -> bytes:
    """Return the flatbuffer with the outputs ``features`` and ``logits`` after the probabilities.

    Features are the output of the last global pooling, logits the input of the softmax, both
    float32. Raises `DataError` for a graph that does not end so.
    """
    model = read_model(content)
    graph = model.subgraphs[0]
    if len(graph.outputs) != 1:
        raise DataError(f"the graph already returns {len(graph.outputs)} tensors; expected one.")
    makers = {int(index): op for op in graph.operators for index in op.outputs}
    last = makers[int(graph.outputs[0])]
    if operator_name(model, last) != "SOFTMAX":
        raise DataError(f"the graph ends in {operator_name(model, last)}; expected a SOFTMAX.")
    found = {LOGITS: int(last.inputs[0])}
    at = makers.get(found[LOGITS])
    while at is not None and operator_name(model, at) not in POOLING:
        at = makers.get(int(at.inputs[0]))
    if at is None:
        raise DataError(f"the graph has none of {', '.join(POOLING)} before its classifier.")
    found[FEATURES] = _add_dequantize(model, graph, int(at.outputs[0]))
    graph.outputs = [int(graph.outputs[0]), found[FEATURES], found[LOGITS]]
    for signature in model.signatureDefs or []:
        for name in (FEATURES, LOGITS):
            entry = copy.copy(signature.outputs[0])
            entry.name, entry.tensorIndex = name, found[name]
            signature.outputs.append(entry)
    return dump_model(model)


def _add_dequantize(model: Any, graph: Any, tensor: int) -> int:
    """Return a tensor with real values; a DEQUANTIZE is appended for a quantized one."""
    if graph.tensors[tensor].type == schema.TensorType.FLOAT32:
        return tensor
    real = copy.copy(graph.tensors[tensor])
    real.name, real.type, real.buffer, real.quantization = (
        FEATURES, schema.TensorType.FLOAT32, 0, None
    )  # fmt: skip
    graph.tensors.append(real)
    operator = schema.OperatorT()
    operator.opcodeIndex = find_dequantize(model)
    operator.inputs, operator.outputs = [tensor], [len(graph.tensors) - 1]
    graph.operators.append(operator)
    return len(graph.tensors) - 1
