"""Operators are added by layer of the Keras model, with intervals over rounds, slowest first."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lesiontk.backends import find_backend
from lesiontk.backends.onnx.profile import read_events
from lesiontk.backends.operator_profile import (
    OperatorCost,
    OperatorProfile,
    OperatorTimes,
    keras_layer_of,
)
from lesiontk.bench.layer_profile import LayerProfile, profile_engine, summarize_layers
from lesiontk.errors import UsageError

ENGINES = Path(__file__).parents[2] / "benchmarks" / "engines" / "cnn_7class"
CONVOLUTION = "m/b1_relu/Relu;m/b1_bn/FusedBatchNormV3;m/b1_conv/Conv2D1"
MACS = {
    "block1_conv": 10_616_832, "block2_conv": 35_389_440, "block3_conv": 20_643_840,
    "block4_conv": 10_321_920, "block5_conv": 5_898_240, "block6_conv": 2_506_752,
    "dense": 10_880, "logits": 560,
}  # fmt: skip
"""Of the published network, by the shapes of its layers: for block1_conv 128 * 128 * 24 outputs of
27 products."""


@pytest.mark.parametrize(
    ("operator", "layer"),
    [
        (CONVOLUTION, "b1_conv"),
        ("model/dense/MatMul;model/dense/Relu;model/dense/BiasAdd_Gemm", "dense"),
        ("model/pooling/Mean_Squeeze", "pooling"),
        ("model/conv/Conv2D + model/relu/Relu", "conv"),
        ("model/conv2d_3/Conv2D", "conv2d_3"),
        ("model/depthwise_conv2d/depthwise", "depthwise_conv2d"),
        (f"Subtract_4_abcd_{CONVOLUTION}_1/WithoutBiases_f32_u8_m/pool/MaxPool", "b1_conv"),
        ("Transpose_37", "Transpose"),
        ("probabilities", "probabilities"),
    ],
)
def test_the_layer_of_an_operator_is_read_from_its_name(operator: str, layer: str) -> None:
    assert keras_layer_of(operator) == layer


def make_profile() -> LayerProfile:
    profile = OperatorProfile(
        "made up",
        (
            OperatorTimes("m/pool/MaxPool", "MAX_POOL_2D", (1.0, 1.0, 1.0, 1.0)),
            OperatorTimes(CONVOLUTION, "CONV_2D", (2.0, 2.0, 4.0, 2.0)),
            OperatorTimes("m/b1_conv/Conv2D2", "ADD", (1.0, 1.0, 1.0, 1.0)),
        ),
        (5.0, 5.0, 7.0, 5.0),
    )
    return summarize_layers("tflite:int8", profile, [OperatorCost(CONVOLUTION, 6_000_000, 1)], 1)


def test_operators_of_a_layer_are_added_and_the_slowest_layer_is_first() -> None:
    found = make_profile()
    first, second = found.layers
    assert (first.layer, first.kinds, first.median_ms) == ("b1_conv", ("CONV_2D", "ADD"), 3.0)
    assert (second.layer, second.median_ms, second.share) == ("pool", 1.0, 0.25)
    assert (first.macs, first.gops) == (6_000_000, 4.0)
    assert (second.macs, second.gops) == (None, None)
    assert found.coverage == 0.8
    assert LayerProfile.from_document(found.to_document()) == found


def test_a_layer_that_varies_from_round_to_round_has_an_interval() -> None:
    first, second = make_profile().layers
    assert (first.low_ms, first.high_ms) == (3.0, 5.0)
    assert (second.low_ms, second.high_ms) == (1.0, 1.0)


@pytest.mark.parametrize("name", ["tflite_int8.tflite", "onnx_int8.onnx", "tensorrt_int8.onnx"])
def test_the_operations_of_a_published_engine_are_those_of_its_layers(name: str) -> None:
    path = ENGINES / name
    costs = find_backend(path)().count_costs(path)
    assert {keras_layer_of(cost.name): cost.macs for cost in costs if cost.macs} == MACS


@pytest.mark.parametrize("name", ["tflite_int8.tflite", "onnx_int8.onnx"])
def test_every_layer_of_a_published_engine_is_timed(name: str) -> None:
    found = profile_engine(ENGINES / name, rounds=5, threads=1)
    layers = {layer.layer: layer for layer in found.layers}
    assert set(MACS) < set(layers)
    assert {name: layer.macs for name, layer in layers.items() if layer.macs} == MACS
    assert min(layer.median_ms for layer in found.layers) > 0
    assert sum(layer.share for layer in found.layers) == pytest.approx(1.0)
    medians = [layer.median_ms for layer in found.layers]
    assert medians == sorted(medians, reverse=True)


def test_keras_has_no_profile() -> None:
    with pytest.raises(UsageError, match="keras engines have no profile"):
        profile_engine(ENGINES / "keras_float32.keras", rounds=5, threads=1)


def test_an_isolated_operator_computes_what_it_does_in_the_engine() -> None:
    from ai_edge_litert.interpreter import Interpreter

    from lesiontk.backends.tflite.graph import expose_activations, operator_name, read_model
    from lesiontk.backends.tflite.profile import isolate_operator

    content = (ENGINES / "tflite_int8.tflite").read_bytes()
    model = read_model(content)
    graph = model.subgraphs[0]
    whole = Interpreter(model_content=expose_activations(content))
    whole.allocate_tensors()
    entry = whole.get_input_details()[0]
    image = np.random.default_rng(0).integers(0, 256, entry["shape"], np.uint8)
    whole.set_tensor(entry["index"], image)
    whole.invoke()
    values = {
        detail["name"]: whole.get_tensor(detail["index"]) for detail in whole.get_output_details()
    }
    checked = 0
    for operator in graph.operators:
        source, target = (
            graph.tensors[part[0]].name.decode() for part in (operator.inputs, operator.outputs)
        )
        if source not in values:  # the image
            continue
        alone = Interpreter(model_content=isolate_operator(model, operator))
        alone.allocate_tensors()
        alone.set_tensor(alone.get_input_details()[0]["index"], values[source])
        alone.invoke()
        received = alone.get_tensor(alone.get_output_details()[0]["index"])
        np.testing.assert_array_equal(
            received, values[target], err_msg=operator_name(model, operator)
        )
        checked += 1
    assert checked == len(graph.operators) - 1


def test_the_events_of_onnx_runtime_are_read_by_node() -> None:
    def event(name: str, microseconds: int, kind: str = "Node") -> dict[str, object]:
        return {"cat": kind, "name": name, "dur": microseconds, "args": {"op_name": "QLinearConv"}}

    events = [event("session_initialization", 9000, "Session")]
    for microseconds in (9000, 100, 300):  # the first run warms up
        events += [
            event("m/c/Conv2D_token_4_kernel_time", microseconds),
            event("m/c/Conv2D_token_4_fence_before", 7),
            event("model_run", 500, "Session"),
        ]
    (found,) = read_events(events, rounds=2)
    assert found == OperatorTimes("m/c/Conv2D", "QLinearConv", (0.1, 0.3))
