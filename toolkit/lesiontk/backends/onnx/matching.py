"""Matching of an ONNX graph's tensors with those of the float graph it was derived from."""

from __future__ import annotations

import onnx

from lesiontk.backends.onnx.graph import ACTIVATIONS


def match_tensors(parent: onnx.ModelProto, child: onnx.ModelProto) -> dict[str, str]:
    """Return tensor of the float graph -> corresponding tensor of the derived one.

    In a Q/DQ graph that is the output of the DequantizeLinear after it. Where quantization removed
    a Relu or Clip (its range clips as well), the tensor before it has the values after it.
    """
    outputs = {name for node in child.graph.node for name in node.output}
    quantized = {n.input[0]: n.output[0] for n in child.graph.node if n.op_type == "QuantizeLinear"}
    real = {n.input[0]: n.output[0] for n in child.graph.node if n.op_type == "DequantizeLinear"}
    matched: dict[str, str] = {}
    for node in parent.graph.node:
        for name in node.output:
            source = name
            if name not in outputs and node.op_type in ACTIVATIONS and node.input[0] in outputs:
                source = node.input[0]
                matched.pop(source, None)  # it no longer has the values before the activation
            if source in outputs:
                matched[name] = real.get(quantized.get(source, ""), source)
    return matched
