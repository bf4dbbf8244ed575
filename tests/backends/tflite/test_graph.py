"""Edits of TFLite flatbuffers, on tiny networks with every family's normalization."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lesiontk.backends import open_engine
from lesiontk.backends.input_quantization import InputQuantization
from lesiontk.backends.tflite.graph import (
    constant,
    dump_model,
    embed_spec,
    extract_spec,
    operator_name,
    read_model,
    set_byte_input,
    strip_normalization,
)
from lesiontk.errors import DataError
from tests.backends.conftest import NORMALIZATIONS
from tests.backends.tflite.tiny_graphs import TinyParent, float_content, run_graph

BYTE_INPUT = {  # what of each normalization a scale and a whole zero point can say
    "cnn": InputQuantization(1 / 128, 128),
    "lite": InputQuantization(1 / 128, 127),
    "resnet": InputQuantization(1 / 127.5, 0),  # its zero point would be 127.5
    "vgg": InputQuantization(1.0, 0),  # its offset differs between channels
}
LEFT = {"cnn": "CONV_2D", "lite": "CONV_2D", "resnet": "ADD", "vgg": "ADD"}


def list_operators(content: bytes) -> list[str]:
    model = read_model(content)
    return [operator_name(model, operator) for operator in model.subgraphs[0].operators]


# --------------------------------------------------------------- normalization


@pytest.mark.parametrize("name", NORMALIZATIONS)
def test_stripping_stops_where_no_whole_zero_point_is_left(
    name: str, tiny_parent: TinyParent
) -> None:
    before = list_operators(float_content(tiny_parent, name))
    core, quantization = strip_normalization(float_content(tiny_parent, name))
    assert before[0] == "CAST"
    assert list_operators(core)[0] == LEFT[name]
    assert list_operators(core) == before[-len(list_operators(core)) :]
    assert quantization.zero_point == BYTE_INPUT[name].zero_point
    assert quantization.scale == pytest.approx(BYTE_INPUT[name].scale, rel=1e-6)


@pytest.mark.parametrize("name", NORMALIZATIONS)
def test_the_stripped_graph_answers_alike_to_the_real_values_of_the_bytes(
    name: str, tiny_parent: TinyParent
) -> None:
    content = float_content(tiny_parent, name)
    core, quantization = strip_normalization(content)
    image = tiny_parent(name).pictures[:1]
    values = quantization.scale * (image.astype(np.float32) - quantization.zero_point)
    expected = run_graph(content, image)
    np.testing.assert_allclose(run_graph(core, values), expected, atol=1e-5)
    shifted = values + 20 * quantization.scale
    assert np.abs(run_graph(core, shifted) - expected).max() > 1e-3


@pytest.mark.parametrize("name", NORMALIZATIONS)
def test_the_int8_engine_agrees_with_the_float_one(name: str, tiny_parent: TinyParent) -> None:
    parent = tiny_parent(name)
    with open_engine(parent.convert("tflite:int8")) as engine:
        right = parent.verify("tflite:int8", engine.predict(parent.pictures))
        darker = parent.verify("tflite:int8", engine.predict(parent.pictures // 2))
    assert right.passed, [str(check) for check in right.checks]
    assert not darker.passed


@pytest.mark.parametrize("name", NORMALIZATIONS)
def test_no_byte_value_is_changed_on_its_way_to_int8(name: str, tiny_parent: TinyParent) -> None:
    content = tiny_parent(name).convert("tflite:int8").read_bytes()
    model = read_model(content)
    graph = model.subgraphs[0]
    (first,) = [op for op in graph.operators if graph.inputs[0] in list(op.inputs)]
    assert operator_name(model, first) == "QUANTIZE"
    byte, integer = (graph.tensors[i].quantization for i in (graph.inputs[0], first.outputs[0]))
    assert byte.scale[0] == pytest.approx(BYTE_INPUT[name].scale, rel=1e-6)
    assert byte.zeroPoint[0] == BYTE_INPUT[name].zero_point
    assert integer.scale[0] == pytest.approx(byte.scale[0], rel=1e-6)
    assert integer.zeroPoint[0] == byte.zeroPoint[0] - 128


def test_a_graph_that_does_not_begin_with_bytes_is_refused(tiny_parent: TinyParent) -> None:
    core, _ = strip_normalization(float_content(tiny_parent, "cnn"))
    with pytest.raises(DataError, match="does not begin with a CAST"):
        strip_normalization(core)


def test_a_graph_whose_input_is_not_quantized_gets_no_byte_input(tiny_parent: TinyParent) -> None:
    core, quantization = strip_normalization(float_content(tiny_parent, "cnn"))
    with pytest.raises(DataError, match=r"input feeds \['CONV_2D'\]; expected one QUANTIZE"):
        set_byte_input(core, quantization)


def test_only_float_constants_have_values(tiny_parent: TinyParent) -> None:
    model = read_model(float_content(tiny_parent, "vgg"))
    graph = model.subgraphs[0]
    add = next(op for op in graph.operators if operator_name(model, op) == "ADD")
    activation, offset = add.inputs
    assert constant(model, graph, activation) is None
    np.testing.assert_allclose(
        np.asarray(constant(model, graph, offset)), NORMALIZATIONS["vgg"].offset, rtol=1e-6
    )


# ----------------------------------------------------------------- description


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text())
def test_a_description_comes_back_as_it_was(tiny_parent: TinyParent, text: str) -> None:
    assert extract_spec(embed_spec(float_content(tiny_parent, "cnn"), text)) == text.encode()


def test_a_second_description_replaces_the_first(tiny_parent: TinyParent) -> None:
    content = embed_spec(embed_spec(float_content(tiny_parent, "cnn"), "old"), "new")
    assert extract_spec(content) == b"new"
    entries = [entry.name.decode() for entry in read_model(content).metadata]
    assert entries.count("lesiontk") == 1


def test_a_description_changes_no_answer(tiny_parent: TinyParent) -> None:
    content = float_content(tiny_parent, "cnn")
    image = tiny_parent("cnn").pictures[:1]
    np.testing.assert_array_equal(
        run_graph(embed_spec(content, "text"), image), run_graph(content, image)
    )


def test_a_graph_of_others_has_no_description(tiny_parent: TinyParent) -> None:
    core, _ = strip_normalization(float_content(tiny_parent, "cnn"))
    model = read_model(core)
    model.metadata = None
    assert extract_spec(dump_model(model)) is None
