"""The float graph as TensorRT gets it."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import helper

from lesiontk.backends.onnx.constants import constants_of, normalized_tensors
from lesiontk.backends.tensorrt.graph import input_shape, prepare_graph
from lesiontk.errors import DataError
from tests.backends.tensorrt.graphs import find_node, pictures, run_model, set_constant


def test_it_answers_any_number_of_images_as_the_source_answers_one(
    source: onnx.ModelProto, float32: onnx.ModelProto
) -> None:
    onnx.checker.check_model(float32, full_check=True)
    images = pictures(5)
    alone = np.concatenate([run_model(source, images[i : i + 1]) for i in range(5)])
    np.testing.assert_allclose(run_model(float32, images), alone, atol=1e-6)
    assert np.ptp(alone, axis=0).max() > 1e-3


def test_a_dense_layer_is_a_gemm_with_its_channels_on_axis_0(float32: onnx.ModelProto) -> None:
    dense = find_node(float32, "dense")
    assert dense.op_type == "Gemm"
    assert {a.name: a.i for a in dense.attribute} == {"transB": 1}
    assert constants_of(float32.graph)[dense.input[1]].shape == (3, 4)


def test_no_idle_reshape_is_left(float32: onnx.ModelProto) -> None:
    assert "Reshape" not in {node.op_type for node in float32.graph.node}
    assert "same" not in constants_of(float32.graph)


def test_a_reshape_that_does_something_keeps_images_apart(source: onnx.ModelProto) -> None:
    squeeze = find_node(source, "squeeze")
    squeeze.op_type, squeeze.input[1] = "Reshape", "flat"
    source.graph.initializer.append(onnx.numpy_helper.from_array(np.array([1, 4]), "flat"))
    images = pictures(3)
    alone = np.concatenate([run_model(source, images[i : i + 1]) for i in range(3)])
    np.testing.assert_allclose(run_model(prepare_graph(source), images), alone, atol=1e-6)


def test_a_reshape_that_mixes_images_is_refused(source: onnx.ModelProto) -> None:
    squeeze = find_node(source, "squeeze")
    squeeze.op_type, squeeze.input[1] = "Reshape", "mixed"
    source.graph.initializer.append(onnx.numpy_helper.from_array(np.array([4, 1]), "mixed"))
    source.graph.node.remove(find_node(source, "dense"))
    find_node(source, "softmax").input[0] = "pooled"
    with pytest.raises(DataError, match="Reshape squeeze mixes the images of a batch"):
        prepare_graph(source)


def test_a_dense_layer_with_a_factor_is_refused(source: onnx.ModelProto) -> None:
    dense = find_node(source, "dense")
    dense.op_type = "Gemm"
    dense.attribute.append(helper.make_attribute("alpha", 2.0))
    with pytest.raises(DataError, match="Gemm dense is not a plain dense layer"):
        prepare_graph(source)


def test_the_source_is_left_as_it_was(source: onnx.ModelProto) -> None:
    before = source.SerializeToString()
    prepare_graph(source)
    assert source.SerializeToString() == before


def test_what_becomes_of_bytes_ends_at_the_first_layer(float32: onnx.ModelProto) -> None:
    expected = {"image", "real", "scaled", "normal", "planes"}
    assert normalized_tensors(float32.graph) == expected


def test_its_input_is_bytes_in_rgb(float32: onnx.ModelProto) -> None:
    assert input_shape(float32) == (8, 8, 3)
    float32.graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.FLOAT
    with pytest.raises(DataError, match=r"input is FLOAT .*expected UINT8"):
        input_shape(float32)


def test_a_shared_weight_is_turned_once_for_each_layer(source: onnx.ModelProto) -> None:
    """Two dense layers of one weight: turning it twice would give it back."""
    set_constant(source, "w3", np.eye(4, 3, dtype=np.float32))
    images = pictures(2)
    alone = np.concatenate([run_model(source, images[i : i + 1]) for i in range(2)])
    np.testing.assert_allclose(run_model(prepare_graph(source), images), alone, atol=1e-6)
