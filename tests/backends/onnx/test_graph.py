"""Edits of ONNX graphs, on tiny networks of every normalization and on a graph made by hand."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from lesiontk.backends import open_engine
from lesiontk.backends.onnx.graph import (
    INPUT,
    OUTPUT,
    embed_spec,
    expose_tensors,
    name_canonically,
    quantized_operators,
    set_byte_input,
    strip_normalization,
    weights_by_type,
)
from lesiontk.errors import DataError
from tests.backends.conftest import NORMALIZATIONS
from tests.conformance.fitted_models import FittedParent

TinyParent = Callable[[str], FittedParent]
SCALE = {"cnn": 1 / 128, "lite": 1 / 128, "resnet": 1 / 127.5, "vgg": 1.0}
ZERO_POINT = {"cnn": 128, "lite": 127, "resnet": 0, "vgg": 0}


def float_model(tiny_parent: TinyParent, name: str) -> onnx.ModelProto:
    return onnx.load(tiny_parent(name).convert("onnx:float32"))


def run_graph(model: onnx.ModelProto, image: NDArray[np.generic]) -> NDArray[np.float32]:
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return np.asarray(session.run([OUTPUT], {session.get_inputs()[0].name: image})[0])


# --------------------------------------------------------------- normalization


@pytest.mark.parametrize("name", NORMALIZATIONS)
def test_stripping_stops_where_no_whole_zero_point_is_left(
    name: str, tiny_parent: TinyParent
) -> None:
    model = float_model(tiny_parent, name)
    stripped = strip_normalization(model)
    whole = name in ("cnn", "lite")
    assert model.graph.node[0].op_type == ("Conv" if whole else "Add")
    assert stripped.quantization.zero_point == ZERO_POINT[name]
    assert stripped.quantization.scale == pytest.approx(SCALE[name], rel=1e-6)
    assert stripped.shape == (1, 32, 32, 3)
    assert stripped.permutation == ((0, 3, 1, 2) if whole else None)
    onnx.checker.check_model(model, full_check=True)


@pytest.mark.parametrize("name", NORMALIZATIONS)
def test_the_stripped_graph_answers_alike_to_the_real_values_of_the_bytes(
    name: str, tiny_parent: TinyParent
) -> None:
    image = tiny_parent(name).pictures[:1]
    expected = run_graph(float_model(tiny_parent, name), image)
    model = float_model(tiny_parent, name)
    stripped = strip_normalization(model)
    values = stripped.quantization.scale * (
        image.astype(np.float32) - stripped.quantization.zero_point
    )
    if stripped.permutation:
        values = values.transpose(stripped.permutation)
    np.testing.assert_allclose(run_graph(model, values), expected, atol=1e-5)
    shifted = values + np.float32(20 * stripped.quantization.scale)
    assert np.abs(run_graph(model, shifted) - expected).max() > 1e-3


@pytest.mark.parametrize("name", NORMALIZATIONS)
def test_the_int8_engine_agrees_with_the_float_one(name: str, tiny_parent: TinyParent) -> None:
    parent = tiny_parent(name)
    with open_engine(parent.convert("onnx:int8")) as engine:
        right = parent.verify("onnx:int8", engine.predict(parent.pictures))
        darker = parent.verify("onnx:int8", engine.predict(parent.pictures // 2))
    assert right.passed, [str(check) for check in right.checks]
    assert not darker.passed


def test_a_graph_that_does_not_begin_with_bytes_is_refused(tiny_parent: TinyParent) -> None:
    model = float_model(tiny_parent, "cnn")
    strip_normalization(model)
    with pytest.raises(DataError, match="does not begin with a Cast"):
        strip_normalization(model)


def test_a_graph_whose_input_is_not_quantized_gets_no_byte_input(tiny_parent: TinyParent) -> None:
    model = float_model(tiny_parent, "cnn")
    stripped = strip_normalization(model)
    with pytest.raises(
        DataError, match=r"images go to Conv, which .*; expected a layer with weights"
    ):
        set_byte_input(model, stripped)


# ------------------------------------------------------------- names and order


def make_chain(numbers: tuple[int, ...], order: tuple[int, ...]) -> onnx.ModelProto:
    """Two additions on two branches, joined; as tf2onnx names and orders them, by chance."""
    a, b, c, d = (f"__{number}" for number in numbers)
    nodes = [
        helper.make_node("Add", ["x", f"const{a}"], [f"left{c}:0"], f"Add{c}"),
        helper.make_node("Mul", ["x", f"const{b}"], [f"right{d}:0"], f"Mul{d}"),
        helper.make_node("Sub", [f"left{c}:0", f"right{d}:0"], ["y"], "Sub"),
    ]
    constants = [
        numpy_helper.from_array(np.array([1.0], np.float32), f"const{a}"),
        numpy_helper.from_array(np.array([2.0], np.float32), f"const{b}"),
    ]
    border = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1]) for n in ("x", "y")]
    graph = helper.make_graph(
        [nodes[i] for i in order if i < 3],
        "chain",
        border[:1],
        border[1:],
        constants[:: 1 if order[0] < order[1] else -1],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])


@given(st.permutations(range(4)), st.lists(st.integers(0, 99), min_size=4, max_size=4, unique=True))
def test_names_and_order_depend_on_the_structure_alone(
    order: list[int], numbers: list[int]
) -> None:
    first, other = make_chain((1, 2, 3, 4), (0, 1, 2)), make_chain(tuple(numbers), tuple(order))
    name_canonically(first)
    name_canonically(other)
    assert other.SerializeToString() == first.SerializeToString()
    onnx.checker.check_model(other, full_check=True)


def test_another_structure_keeps_another_graph() -> None:
    first, other = make_chain((1, 2, 3, 4), (0, 1, 2)), make_chain((1, 2, 3, 4), (0, 1, 2))
    other.graph.node[0].op_type = "Mul"
    name_canonically(first)
    name_canonically(other)
    assert other.SerializeToString() != first.SerializeToString()


def test_what_no_output_needs_is_left_out() -> None:
    model = make_chain((1, 2, 3, 4), (0, 1, 2))
    model.graph.node.append(helper.make_node("Neg", ["x"], ["unused"]))
    model.graph.initializer.append(numpy_helper.from_array(np.zeros(9, np.float32), "unread"))
    name_canonically(model)
    assert sorted(node.op_type for node in model.graph.node) == ["Add", "Mul", "Sub"]
    assert len(model.graph.initializer) == 2


@given(st.floats(-1e3, 1e3, width=32))
def test_naming_changes_no_answer(value: float) -> None:
    model = make_chain((5, 6, 7, 8), (0, 1, 2))
    name_canonically(model)
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    x = np.array([value], np.float32)
    np.testing.assert_array_equal(session.run(["y"], {"x": x})[0], (x + 1) - x * 2)


# --------------------------------------------------------------------- reading


def test_every_float_tensor_but_what_is_clipped_next_can_be_made_an_output(
    tiny_parent: TinyParent,
) -> None:
    model = float_model(tiny_parent, "cnn")
    before = model.SerializeToString()
    exposed, names = expose_tensors(model)
    clipped = {node.input[0] for node in model.graph.node if node.op_type in ("Relu", "Clip")}
    made = [n for node in model.graph.node for n in node.output if n not in clipped]
    assert clipped
    assert names == made
    assert {entry.name for entry in exposed.graph.output} == set(made)
    assert model.SerializeToString() == before
    onnx.checker.check_model(exposed)


def test_a_float_graph_has_no_quantized_operator(tiny_parent: TinyParent) -> None:
    quantized, floating = quantized_operators(float_model(tiny_parent, "cnn"))
    assert quantized == []
    assert {"Conv", "Gemm", "Softmax"} <= {node.op_type for node in floating}


@pytest.mark.parametrize("name", NORMALIZATIONS)
def test_an_int8_graph_has_one_float_operator(name: str, tiny_parent: TinyParent) -> None:
    model = onnx.load(tiny_parent(name).convert("onnx:int8"))
    quantized, floating = quantized_operators(model)
    assert [node.op_type for node in floating] == ["Softmax"]
    assert [node.op_type for node in quantized].count("Conv") == 2


def test_an_operator_with_a_float_weight_is_not_taken_for_quantized(
    tiny_parent: TinyParent,
) -> None:
    model = onnx.load(tiny_parent("cnn").convert("onnx:int8"))
    gemm = next(node for node in model.graph.node if node.op_type == "Gemm")
    weight = numpy_helper.from_array(np.zeros((48, 7), np.float32), "float_weight")
    model.graph.initializer.append(weight)
    gemm.input[1] = "float_weight"
    _, floating = quantized_operators(model)
    assert {node.op_type for node in floating} == {"Gemm", "Softmax"}


def test_weights_are_counted_by_type_without_scales_and_zero_points(
    tiny_parent: TinyParent,
) -> None:
    weights = {"first": 3 * 3 * 3 * 32, "second": 3 * 3 * 32 * 48, "logits": 48 * 7}
    count, biases = sum(weights.values()), 32 + 48 + 7
    full = weights_by_type(float_model(tiny_parent, "cnn"))
    assert 4 * (count + biases) <= full["float32"] <= 4 * (count + biases + 8)
    int8 = weights_by_type(onnx.load(tiny_parent("cnn").convert("onnx:int8")))
    assert int8["int8"] == count
    assert int8["int32"] == 4 * biases
    assert "float32" not in int8


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(st.characters(codec="utf-8")), st.text(st.characters(codec="utf-8")))
def test_a_description_comes_back_as_it_was(first: str, second: str) -> None:
    model = make_chain((1, 2, 3, 4), (0, 1, 2))
    helper.set_model_props(model, {"author": "another tool"})
    embed_spec(model, first)
    embed_spec(model, second)
    read = onnx.load_model_from_string(model.SerializeToString())
    properties = [(entry.key, entry.value) for entry in read.metadata_props]
    assert properties == [("author", "another tool"), ("lesiontk", second)]


def test_the_border_is_called_image_and_probabilities(tiny_parent: TinyParent) -> None:
    model = float_model(tiny_parent, "cnn")
    assert [entry.name for entry in model.graph.input] == [INPUT]
    assert [entry.name for entry in model.graph.output] == [OUTPUT]
