"""The hand-made graph, as each precision of the back end has it."""

from __future__ import annotations

import onnx
import pytest

from lesiontk.backends.backend import QuantizationPlan
from lesiontk.backends.onnx.backend import tensor_reader
from lesiontk.backends.onnx.float16 import convert_to_float16
from lesiontk.backends.tensorrt.backend import choose_half, find_ranges
from lesiontk.backends.tensorrt.graph import prepare_graph
from lesiontk.backends.tensorrt.quantize import insert_quantization
from tests.backends.tensorrt.graphs import pictures, residual_model


@pytest.fixture
def source() -> onnx.ModelProto:
    return residual_model()


@pytest.fixture
def float32(source: onnx.ModelProto) -> onnx.ModelProto:
    return prepare_graph(source)


@pytest.fixture
def float16(source: onnx.ModelProto) -> onnx.ModelProto:
    model = prepare_graph(source)
    convert_to_float16(model)
    return model


@pytest.fixture
def int8(source: onnx.ModelProto) -> onnx.ModelProto:
    model = prepare_graph(source)
    plan = QuantizationPlan(pictures(8, seed=1), "min_max")
    insert_quantization(model, find_ranges(source, tensor_reader(source), plan), plan.keep_float)
    return model


@pytest.fixture
def mixed(source: onnx.ModelProto) -> onnx.ModelProto:
    """The second convolution, which the addition is part of, in float16; all else in int8."""
    model = prepare_graph(source)
    plan = QuantizationPlan(pictures(8, seed=1), "min_max", float_layers=frozenset({"c2"}))
    ranges = find_ranges(source, tensor_reader(source), plan)
    half = choose_half(model, plan.float_layers, ranges)
    insert_quantization(model, ranges, plan.keep_float, plan.float_layers)
    convert_to_float16(model, only=half)
    return model
