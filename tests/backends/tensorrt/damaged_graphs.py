"""Graphs that TensorRT refuses."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper, numpy_helper

from tests.backends.tensorrt.graphs import find_node, set_constant


def make_asymmetric(model: onnx.ModelProto) -> None:
    set_constant(model, "second/input_zero_point", np.array(-128, np.int8))


def quantize_bias(model: onnx.ModelProto) -> None:
    for name, value in (
        ("bias_int32", np.zeros(4, np.int32)),
        ("bias_scale", np.array(0.1, np.float32)),
        ("bias_zero_point", np.array(0, np.int32)),
    ):
        model.graph.initializer.append(numpy_helper.from_array(value, name))
    inputs = ["bias_int32", "bias_scale", "bias_zero_point"]
    node = helper.make_node("DequantizeLinear", inputs, ["bias"], "bias_dq")
    model.graph.node.insert(0, node)
    find_node(model, "second").input[2] = "bias"
