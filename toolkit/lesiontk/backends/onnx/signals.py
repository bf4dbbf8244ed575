"""Pooled features and logits as further outputs of an ONNX classifier."""

from __future__ import annotations

import onnx
from onnx import TensorProto, helper

from lesiontk.backends.backend import FEATURES, LOGITS
from lesiontk.errors import DataError

POOLING = ("GlobalAveragePool", "ReduceMean")
QUANTIZATION = ("QuantizeLinear", "DequantizeLinear")


def add_signal_outputs(model: onnx.ModelProto) -> None:
    """Add the outputs ``features`` and ``logits`` after the probabilities, in place.

    Features are the output of the last global pooling, after its quantization if it has one, so
    that the runtime's integer kernels still match; logits the input of the softmax. Both are
    float32 in a graph of any precision. Raises `DataError` for a graph that does not end so.
    """
    graph = model.graph
    if len(graph.output) != 1:
        raise DataError(f"the graph already returns {len(graph.output)} tensors; expected one.")
    makers = {name: node for node in graph.node for name in node.output}
    last = makers.get(graph.output[0].name)
    if last is None or last.op_type != "Softmax":
        raise DataError(
            f"the graph ends in {last.op_type if last else 'its input'}; expected a Softmax."
        )
    logits = last.input[0]
    name, node = logits, makers.get(logits)
    pooled = ""
    while node is not None and node.op_type not in POOLING:
        # The dequantized tensor nearest to the pooling is the one to show.
        pooled = name if node.op_type == "DequantizeLinear" else (
            pooled if node.op_type in QUANTIZATION else "")  # fmt: skip
        name = node.input[0]
        node = makers.get(name)
    if node is None:
        raise DataError(f"the graph has none of {', '.join(POOLING)} before its classifier.")
    inferred = onnx.shape_inference.infer_shapes(model).graph.value_info
    types = {entry.name: entry.type for entry in inferred}
    for output, tensor in ((FEATURES, pooled or name), (LOGITS, logits)):
        shape = types[tensor].tensor_type.shape
        single = types[tensor].tensor_type.elem_type == TensorProto.FLOAT
        cast = {} if single else {"to": TensorProto.FLOAT}
        kind = "Cast" if cast else "Identity"
        graph.node.append(helper.make_node(kind, [tensor], [output], output, **cast))
        entry = graph.output.add(name=output)
        entry.type.tensor_type.elem_type = TensorProto.FLOAT
        entry.type.tensor_type.shape.CopyFrom(shape)
