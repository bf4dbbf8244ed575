"""Where Q/DQ nodes stand, and what they round."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from lesiontk.backends.onnx.constants import constants_of
from lesiontk.backends.tensorrt.lint import lint_graph
from lesiontk.backends.tensorrt.quantize import (
    find_skips,
    insert_quantization,
    list_layers,
    quantize_weight,
    split_by_type,
    symmetric_scale,
)
from lesiontk.errors import DataError
from tests.backends.tensorrt.graphs import find_node, pictures, run_model

Weight = np.ndarray[tuple[int, int], np.dtype[np.float32]]


@given(low=st.floats(-1e4, 0, width=32), high=st.floats(0, 1e4, width=32), share=st.floats(0, 1))
def test_a_value_within_its_range_is_off_by_half_a_step_at_most(
    low: float, high: float, share: float
) -> None:
    scale = symmetric_scale(low, high)
    value = low + share * (high - low)
    stored = np.clip(np.rint(value / scale), -128, 127)
    assert abs(stored * scale - value) <= scale / 2 * (1 + 1e-6)


def test_bytes_that_are_normalized_to_minus_one_to_one_are_kept_exactly() -> None:
    assert symmetric_scale(-1.0, 127 / 128) == 1 / 128


@given(arrays(np.float32, (3, 5), elements=st.floats(-100, 100, width=32)))
def test_a_weight_is_off_by_half_a_step_of_its_channel_at_most(weight: Weight) -> None:
    stored, scales = quantize_weight(weight)
    assert stored.dtype == np.int8
    assert stored.min() >= -127
    off = np.abs(stored * scales[:, np.newaxis].astype(np.float64) - weight)
    assert (off <= scales[:, np.newaxis] * 0.5001).all()


def test_inputs_of_layers_and_pools_are_quantized_and_of_the_addition_the_skip(
    int8: onnx.ModelProto,
) -> None:
    onnx.checker.check_model(int8, full_check=True)
    makers = {name: node for node in int8.graph.node for name in node.output}

    def quantized(name: str) -> list[str]:
        """The tensors that a node gets through QuantizeLinear and DequantizeLinear."""
        found = []
        for tensor in find_node(int8, name).input:
            maker = makers.get(tensor)
            if maker is not None and maker.op_type == "DequantizeLinear":
                before = makers.get(maker.input[0])
                found.append("weight" if before is None else before.input[0])
        return found

    assert quantized("first") == ["planes", "weight"]
    assert quantized("second") == ["r1", "weight"]
    assert quantized("dense") == ["pooled", "weight"]
    assert quantized("pool") == ["r2"]
    assert quantized("join") == ["r1"]  # the skip, not what the convolution gives
    assert find_node(int8, "join").input[0] == "c2"
    assert quantized("softmax") == []


def test_each_layer_has_a_pair_of_its_own(int8: onnx.ModelProto) -> None:
    reading = [name for node in int8.graph.node for name in node.input]
    for node in int8.graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            assert reading.count(node.output[0]) == 1


def test_no_weight_is_kept_in_float_and_no_bias_in_int(int8: onnx.ModelProto) -> None:
    constants = constants_of(int8.graph)
    for name in ("first", "second", "dense"):
        node = find_node(int8, name)
        assert constants[f"{name}/weight_int8"].dtype == np.int8
        for bias in node.input[2:]:
            assert constants[bias].dtype == np.float32
    assert max(v.size for v in constants.values() if v.dtype == np.float32) <= 4


def test_every_zero_point_is_zero_and_int8(int8: onnx.ModelProto) -> None:
    constants = constants_of(int8.graph)
    nodes = [n for n in int8.graph.node if n.op_type in ("QuantizeLinear", "DequantizeLinear")]
    assert len(nodes) == 3 + 2 * 5
    for node in nodes:
        assert constants[node.input[2]].dtype == np.int8
        assert not constants[node.input[2]].any()


def test_it_answers_as_the_float_graph(float32: onnx.ModelProto, int8: onnx.ModelProto) -> None:
    images = pictures(16, seed=2)
    expected, received = run_model(float32, images), run_model(int8, images)
    assert 0 < np.abs(expected - received).max() < 0.01
    weights = [e for e in int8.graph.initializer if e.name == "second/weight_scale"]
    weights[0].CopyFrom(
        onnx.numpy_helper.from_array(np.full(4, 0.1, np.float32), "second/weight_scale")
    )
    assert np.abs(expected - run_model(int8, images)).max() > 0.02  # the comparison sees a scale


def test_a_tensor_without_a_range_is_refused(float32: onnx.ModelProto) -> None:
    with pytest.raises(DataError, match="no range was measured for planes, which first reads"):
        insert_quantization(float32, {})


def test_operators_that_are_to_stay_in_float_do(float32: onnx.ModelProto) -> None:
    before = float32.SerializeToString()
    insert_quantization(float32, {}, ("conv", "GEMM", "Add", "globalaveragepool"))
    assert float32.SerializeToString() == before


def test_a_layer_that_is_kept_is_quantized_nowhere_nor_the_skip_that_it_adds(
    int8: onnx.ModelProto, mixed: onnx.ModelProto
) -> None:
    onnx.checker.check_model(mixed, full_check=True)
    readers = {name for node in mixed.graph.node for name in node.input if "dequantized" in name}
    assert readers == {f"{name}/input_dequantized" for name in ("first", "pool", "dense")}
    assert find_node(mixed, "join").input[1] == "r1"
    weights = constants_of(mixed.graph)
    assert weights[find_node(mixed, "second").input[1]].dtype == np.float16
    floating = [node.name for node in split_by_type(mixed.graph)[1]]
    assert floating == ["second", "join", "second_relu", "softmax"]
    assert lint_graph(mixed) == ()
    images = pictures(16, seed=2)
    off = np.abs(run_model(mixed, images) - run_model(int8, images)).max()
    assert 0 < off < 0.01


def test_what_may_be_kept_is_what_is_quantized(float32: onnx.ModelProto) -> None:
    assert list_layers(float32.graph) == ("c1", "c2", "pool", "scores")


def test_of_two_layers_that_are_added_the_earlier_is_the_skip(float32: onnx.ModelProto) -> None:
    find_node(float32, "join").input[:] = ["c1", "c2"]
    assert find_skips(float32.graph) == {"sum": 0}
    find_node(float32, "join").input[:] = ["c2", "c1"]
    assert find_skips(float32.graph) == {"sum": 1}
    assert find_skips(float32.graph, {"c2"}) == {"sum": 0}
    assert find_skips(float32.graph, {"c1", "c2"}) == {}


def test_an_addition_that_follows_no_layer_has_no_skip(float32: onnx.ModelProto) -> None:
    find_node(float32, "join").input[:] = ["r1", "r1"]
    assert find_skips(float32.graph) == {}


def test_all_but_softmax_can_run_in_int8(int8: onnx.ModelProto, float32: onnx.ModelProto) -> None:
    integer, floating = split_by_type(int8.graph)
    assert [node.name for node in floating] == ["softmax"]
    assert len(integer) == 8
    assert split_by_type(float32.graph)[0] == []


def test_a_layer_with_a_float_weight_does_not_run_in_int8(int8: onnx.ModelProto) -> None:
    int8.graph.initializer.append(
        onnx.numpy_helper.from_array(np.zeros((4, 4, 3, 3), np.float32), "in_float")
    )
    find_node(int8, "second").input[1] = "in_float"
    assert "second" in [node.name for node in split_by_type(int8.graph)[1]]
