"""Each rule sees the graph that breaks it, and none sees anything in the back end's own."""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from lesiontk.backends.tensorrt.lint import lint_graph
from tests.backends.tensorrt.damaged_graphs import make_asymmetric, quantize_bias
from tests.backends.tensorrt.graphs import find_node, set_constant


def test_the_back_ends_own_graphs_pass(
    float32: onnx.ModelProto, float16: onnx.ModelProto, int8: onnx.ModelProto
) -> None:
    assert [*lint_graph(float32), *lint_graph(float16), *lint_graph(int8)] == []


def make_unsigned(model: onnx.ModelProto) -> None:
    set_constant(model, "second/input_zero_point", np.array(0, np.uint8))


def make_scale_zero(model: onnx.ModelProto) -> None:
    set_constant(model, "second/input_scale", np.array(0, np.float32))


def drop_zero_point(model: onnx.ModelProto) -> None:
    del find_node(model, "second/dq").input[2]


def scale_channels(model: onnx.ModelProto) -> None:
    set_constant(model, "second/input_scale", np.ones(4, np.float32))
    set_constant(model, "second/input_zero_point", np.zeros(4, np.int8))


def keep_float_weight(model: onnx.ModelProto) -> None:
    model.graph.initializer.append(
        numpy_helper.from_array(np.zeros((4, 4, 3, 3), np.float32), "in_float")
    )
    find_node(model, "second").input[1] = "in_float"


def keep_float_input(model: onnx.ModelProto) -> None:
    find_node(model, "second").input[0] = "r1"


def store_weight_in_float(model: onnx.ModelProto) -> None:
    dequantize = find_node(model, "second/weight_dq")
    set_constant(model, "second/weight_int8", np.zeros((4, 4, 3, 3), np.float32))
    inputs = list(dequantize.input)
    model.graph.node.insert(
        0, helper.make_node("QuantizeLinear", inputs, ["w2_q"], "second/weight_q", axis=0)
    )
    dequantize.input[0] = "w2_q"


def turn_channels(model: onnx.ModelProto) -> None:
    del find_node(model, "second/weight_dq").attribute[:]


def break_pair(model: onnx.ModelProto) -> None:
    find_node(model, "second").input[0] = "second/input_quantized"
    model.graph.node.remove(find_node(model, "second/dq"))


def turn_bytes(model: onnx.ModelProto) -> None:
    find_node(model, "cast").input[0] = "turned"
    model.graph.node.insert(
        0, helper.make_node("Transpose", ["image"], ["turned"], "turn_bytes", perm=[0, 1, 2, 3])
    )


BROKEN: dict[str, tuple[Callable[[onnx.ModelProto], None], str, str]] = {
    "asymmetric": (make_asymmetric, "second/q", "asymmetric: its zero point is -128; expected 0"),
    "unsigned": (make_unsigned, "second/q", "it quantizes to uint8; expected int8"),
    "scale zero": (make_scale_zero, "second/dq", "its scale is 0.0; expected finite numbers"),
    "no zero point": (drop_zero_point, "second/dq", "it has no zero point"),
    "activation by channel": (scale_channels, "second/q", "a scale for each channel"),
    "quantized bias": (quantize_bias, "bias_dq", r"a quantized bias \(int32\)"),
    "layer of a quantized bias": (quantize_bias, "second", "its bias is quantized"),
    "float weight": (keep_float_weight, "second", "its input is quantized but its weight is not"),
    "float input": (keep_float_input, "second", "its weight is quantized but its input is not"),
    "copy in float": (store_weight_in_float, "second/weight_q", "weight is kept in float"),
    "another axis": (turn_channels, "second/weight_dq", "channels are on axis 1; expected 0"),
    "no pair": (break_pair, "second/q", "it feeds Conv; expected DequantizeLinear"),
    "bytes": (turn_bytes, "turn_bytes", "reads the uint8 input"),
}


@pytest.mark.parametrize(("damage", "node", "reason"), BROKEN.values(), ids=BROKEN)
def test_a_rule_names_node_operator_and_reason(
    damage: Callable[[onnx.ModelProto], None],
    node: str,
    reason: str,
    int8: onnx.ModelProto,
) -> None:
    damage(int8)
    found = [finding for finding in lint_graph(int8) if finding.node == node]
    assert found, lint_graph(int8)
    assert found[0].check == "lint"
    assert found[0].operator == find_node(int8, node).op_type
    assert any(re.search(reason, finding.reason) for finding in found), found
