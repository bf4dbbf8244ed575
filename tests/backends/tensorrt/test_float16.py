"""Half precision inside, single precision at the border."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from lesiontk.backends.onnx.constants import constants_of
from lesiontk.backends.onnx.float16 import convert_to_float16, list_half_tensors
from lesiontk.errors import DataError
from tests.backends.tensorrt.graphs import pictures, run_model, set_constant


def types_of(model: onnx.ModelProto) -> dict[str, int]:
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
    entries = (*inferred.graph.value_info, *inferred.graph.input, *inferred.graph.output)
    return {entry.name: entry.type.tensor_type.elem_type for entry in entries}


def test_layers_compute_in_half_and_normalization_and_softmax_in_single(
    float16: onnx.ModelProto,
) -> None:
    onnx.checker.check_model(float16, full_check=True)
    types = types_of(float16)
    for name in ("real", "scaled", "normal", "planes", "probabilities"):
        assert types[name] == TensorProto.FLOAT
    for name in ("c1", "r1", "c2", "sum", "r2", "pool", "pooled", "scores"):
        assert types[name] == TensorProto.FLOAT16


def test_weights_are_kept_in_half_alone(float16: onnx.ModelProto) -> None:
    kinds = {name: value.dtype for name, value in constants_of(float16.graph).items()}
    single = {name for name, kind in kinds.items() if kind == np.float32}
    assert single == {"scale", "shift"}


def test_it_answers_as_the_float_graph(float32: onnx.ModelProto, float16: onnx.ModelProto) -> None:
    images = pictures(8)
    off = np.abs(run_model(float32, images) - run_model(float16, images)).max()
    assert 0 < off < 2e-3


def test_a_single_layer_computes_in_half_and_all_else_in_single(float32: onnx.ModelProto) -> None:
    images = pictures(8)
    expected = run_model(float32, images)
    convert_to_float16(float32, only={"c2"})
    onnx.checker.check_model(float32, full_check=True)
    half = {name for name, kind in types_of(float32).items() if kind == TensorProto.FLOAT16}
    assert half == {"c2", "r1/float16"}
    assert list_half_tensors(float32.graph) == half | {"w2/float16", "b2/float16"}
    assert 0 < np.abs(run_model(float32, images) - expected).max() < 2e-3


def test_a_weight_beyond_half_precision_is_refused(float32: onnx.ModelProto) -> None:
    set_constant(float32, "b2", np.array([1, 2, 7e4, 3], np.float32))
    with pytest.raises(DataError, match="constant b2 reaches 7e\\+04; float16's limit is 65504"):
        convert_to_float16(float32)
