"""The hand-made graph, as each precision of the back end has it."""

from __future__ import annotations

import onnx
import pytest

from lesiontk.backends.backend import QuantizationPlan
from lesiontk.backends.onnx_backend import tensor_reader
from lesiontk.backends.tensorrt.float16 import convert_to_float16
from lesiontk.backends.tensorrt.graph import prepare_graph
from lesiontk.backends.tensorrt.quantize import insert_quantization
from lesiontk.backends.tensorrt.tensorrt_backend import find_ranges

from .graphs import pictures, residual_model


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
