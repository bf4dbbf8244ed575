"""Channels that training switched off keep their bias in every int8 engine.

Their weights are near zero, and weight scales that followed them would leave the bias no room in 32
bits.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper

from lesiontk.backends import BACKENDS
from lesiontk.backends.onnx import bias_range as onnx_bias_range
from lesiontk.backends.reference_outputs import run_engine
from lesiontk.backends.tflite import bias_range as tflite_bias_range
from lesiontk.backends.tflite.graph import dump_model, read_model
from lesiontk.calibration.bias_range import LARGEST_BIAS
from lesiontk.errors import DataError
from lesiontk.evaluate.verification import SATURATED
from lesiontk.models.architecture import Architecture, Normalization
from lesiontk.recipe import VerifyRule
from lesiontk.stages.convert import compare_outputs
from lesiontk.system.frameworks import import_keras
from tests.conformance.fitted_models import FittedParent

OFF = 4
"""So many channels of every layer have next to no weights, and a bias."""
TARGETS = ("tflite:int8", "tflite:int16x8", "onnx:int8", "tensorrt:int8")
NORMALIZATION = Normalization(1 / 128, (-1.0, -1.0, -1.0))


def convolutions(x: Any) -> Any:
    """Ordinary, depthwise and dense layers, one with a BatchNormalization behind it."""
    layers = import_keras().layers
    x = layers.Conv2D(16, 3, 2, padding="same", use_bias=False, name="normalised")(x)
    x = layers.ReLU()(layers.BatchNormalization(name="off_bn")(x))
    x = layers.DepthwiseConv2D(3, padding="same", activation="relu", name="off_depthwise")(x)
    x = layers.Conv2D(32, 3, 2, padding="same", activation="relu", name="off_conv")(x)
    x = layers.GlobalAveragePooling2D()(x)
    return layers.Dense(48, activation="relu", name="off_dense")(x)


def repeated(x: Any) -> Any:
    """A convolution that is used twice, on values of different ranges."""
    layers = import_keras().layers
    x = layers.Conv2D(32, 3, 4, padding="same", activation="relu", name="off_conv")(x)
    twice = layers.Conv2D(32, 3, padding="same", activation="relu", name="off_twice")
    return layers.GlobalAveragePooling2D()(twice(twice(x)))


def transposed(x: Any) -> Any:
    """A convolution, and a transposed one that ONNX engines keep in float."""
    layers = import_keras().layers
    x = layers.Conv2D(16, 3, 4, padding="same", activation="relu", name="off_conv")(x)
    x = layers.Conv2DTranspose(32, 3, 2, activation="relu", name="off_transposed")(x)
    return layers.GlobalAveragePooling2D()(x)


def switch_off(model: Any) -> None:
    """Leave the first channels of the layers ``off_…`` weights of 1e-12 or 0, and a bias."""
    for layer in model.layers:
        if not layer.name.startswith("off_"):
            continue
        if layer.name == "off_bn":
            gamma, beta, mean, variance = layer.get_weights()
            gamma[:OFF], beta[:OFF] = 1e-12, 0.3
            layer.set_weights([gamma, beta, mean, variance])
            continue
        kernel, bias = layer.get_weights()
        axis = 2 if layer.name in ("off_depthwise", "off_transposed") else kernel.ndim - 1
        np.moveaxis(kernel, axis, 0)[:OFF] *= 1e-12
        np.moveaxis(kernel, axis, 0)[0] = 0
        bias[:OFF] = 0.3 * np.where(np.arange(OFF) % 2, 1, 2)
        layer.set_weights([kernel, bias])


@pytest.fixture(scope="module")
def parent(tmp_path_factory: pytest.TempPathFactory) -> FittedParent:
    architecture = Architecture("off", 32, NORMALIZATION, convolutions)
    return FittedParent(architecture, tmp_path_factory.mktemp("off"), switch_off)


@pytest.fixture(scope="module")
def repeating(tmp_path_factory: pytest.TempPathFactory) -> FittedParent:
    architecture = Architecture("repeated", 32, NORMALIZATION, repeated)
    return FittedParent(architecture, tmp_path_factory.mktemp("repeated"), switch_off)


@pytest.fixture(scope="module")
def turned(tmp_path_factory: pytest.TempPathFactory) -> FittedParent:
    architecture = Architecture("turned", 32, NORMALIZATION, transposed)
    return FittedParent(architecture, tmp_path_factory.mktemp("turned"), switch_off)


def ask(parent: FittedParent, target: str) -> NDArray[np.float32]:
    return run_engine(parent.convert(target), parent.pictures, 1).outputs


# ------------------------------------------------------------------- what is made


@pytest.mark.parametrize("target", TARGETS)
def test_an_engine_with_channels_that_are_off_answers_as_its_parent(
    target: str, parent: FittedParent
) -> None:
    verification = parent.verify(target, ask(parent, target))
    assert verification.passed, verification.describe_failures()


@pytest.mark.parametrize("target", TARGETS)
def test_a_layer_that_is_used_twice_keeps_its_bias(target: str, repeating: FittedParent) -> None:
    verification = repeating.verify(target, ask(repeating, target))
    assert verification.passed, verification.describe_failures()


@pytest.mark.parametrize("target", ["tflite:int8", "tflite:int16x8"])
def test_a_transposed_convolution_keeps_its_bias(target: str, turned: FittedParent) -> None:
    verification = turned.verify(target, ask(turned, target))
    assert verification.passed, verification.describe_failures()


@pytest.mark.parametrize("target", ["tflite:int8", "tflite:int16x8"])
@pytest.mark.parametrize("network", ["parent", "repeating", "turned"])
def test_every_stored_bias_is_the_float_one_in_half_of_int32(
    target: str, network: str, request: pytest.FixtureRequest
) -> None:
    made: FittedParent = request.getfixturevalue(network)
    content = made.convert(target).read_bytes()
    expected = tflite_bias_range.read_biases(made.convert("tflite:float32").read_bytes())
    stored = tflite_bias_range.read_biases(content)
    off = [name for name in stored if "off_" in name]  # bias correction moves the others
    assert len(off) >= 2
    for name in off:
        values = stored[name]
        np.testing.assert_allclose(values[:OFF], expected[name][:OFF], atol=2e-3)
    model = read_model(content)
    assert largest_tflite_bias(model) <= LARGEST_BIAS


def largest_tflite_bias(model: Any) -> int:
    kinds = {2: np.int32, 4: np.int64}
    graph = model.subgraphs[0]
    return max(
        int(np.abs(np.frombuffer(bytes(model.buffers[t.buffer].data), kinds[t.type])).max())
        for t in graph.tensors
        if t.type in kinds and t.quantization is not None and t.quantization.scale is not None
    )


def test_onnx_biases_are_the_float_ones_in_half_of_int32(parent: FittedParent) -> None:
    expected = onnx_bias_range.read_biases(onnx.load(parent.convert("onnx:float32")))
    model = onnx.load(parent.convert("onnx:int8"))
    constants = {e.name: numpy_helper.to_array(e) for e in model.graph.initializer}
    makers = {n.output[0]: n.input for n in model.graph.node if n.op_type == "DequantizeLinear"}
    largest = []
    for node in model.graph.node:
        if node.op_type not in ("Conv", "Gemm"):
            continue
        stored, scale = (constants[name] for name in makers[node.input[2]][:2])
        largest.append(int(np.abs(stored.astype(np.int64)).max()))
        if node.output[0] != "logits" and len(stored) > 7:
            np.testing.assert_allclose(
                stored[:OFF] * scale[:OFF].astype(np.float64), expected[node.name][:OFF], rtol=1e-6
            )
    assert len(largest) >= 4
    assert LARGEST_BIAS * 0.99 <= max(largest) <= LARGEST_BIAS


def test_tensorrt_scales_leave_a_bias_in_int32_the_same_room(parent: FittedParent) -> None:
    """The graph has biases in float; an engine may store them otherwise."""
    model = onnx.load(parent.convert("tensorrt:int8"))
    constants = {e.name: numpy_helper.to_array(e) for e in model.graph.initializer}
    makers = {n.output[0]: n for n in model.graph.node if n.op_type == "DequantizeLinear"}
    layers = [n for n in model.graph.node if n.op_type in ("Conv", "Gemm") and len(n.input) > 2]
    assert len(layers) >= 4
    for node in layers:
        scales = [constants[makers[name].input[1]] for name in node.input[:2]]
        stored = constants[node.input[2]] / np.prod(np.broadcast_arrays(*scales), axis=0)
        assert np.abs(stored).max() <= LARGEST_BIAS * 1.0001


def test_without_room_the_quantizer_cuts_the_biases_off(
    parent: FittedParent, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The twin: what ai-edge-quantizer gives by itself, and verification's word on it."""
    monkeypatch.setattr(
        "lesiontk.backends.tflite.quantization.leave_room_for_biases",
        lambda content, biases: content,
    )
    record = parent.convert_into("tflite:int8", tmp_path)
    file = tmp_path / record.file
    answers = run_engine(parent.convert("keras:float32"), parent.pictures, 1)
    received = run_engine(file, parent.pictures, 1)
    verification = compare_outputs(answers, received, file, VerifyRule())
    assert verification.agreement.top1_agreement < 0.8
    (check,) = [check for check in verification.checks if check.name == SATURATED]
    assert not check.passed
    assert check.value >= 3 * OFF
    assert "off_depthwise" in str(check.found)
    assert "channel 0" in verification.describe_failures()


# ---------------------------------------------------------------- what is refused


def damage_tflite(source: Path, out: Path) -> str:
    model = read_model(source.read_bytes())
    graph = model.subgraphs[0]
    operator = next(
        op for op in graph.operators if "off_conv" in graph.tensors[op.outputs[0]].name.decode()
    )
    tensor = graph.tensors[operator.inputs[2]]
    values = np.frombuffer(bytes(model.buffers[tensor.buffer].data), np.int32).copy()
    values[2] = np.iinfo(np.int32).max
    model.buffers[tensor.buffer].data = np.frombuffer(values.tobytes(), np.uint8)
    out.write_bytes(dump_model(model))
    return "off_conv"


def damage_onnx(source: Path, out: Path) -> str:
    model = onnx.load(source)
    entry = next(e for e in model.graph.initializer if e.data_type == onnx.TensorProto.INT32)
    values = numpy_helper.to_array(entry).copy()
    values[2] = np.iinfo(np.int32).min
    entry.CopyFrom(numpy_helper.from_array(values, entry.name))
    onnx.save(model, out)
    return "Conv"


@pytest.mark.parametrize(
    ("target", "damage"), [("tflite:int8", damage_tflite), ("onnx:int8", damage_onnx)]
)
def test_a_bias_at_the_end_of_its_type_is_refused_by_name(
    target: str, damage: Callable[[Path, Path], str], parent: FittedParent, tmp_path: Path
) -> None:
    source = parent.convert(target)
    file = tmp_path / f"damaged{source.suffix}"
    name = damage(source, file)
    backend = BACKENDS.get(target.partition(":")[0])()
    assert backend.inspect(source).saturated_biases == {}
    (cut,) = backend.inspect(file).saturated_biases.items()
    assert name in cut[0]
    assert list(cut[1]) == [2]


def test_a_graph_whose_bias_is_not_known_is_not_changed(parent: FittedParent) -> None:
    content = parent.convert("tflite:int8").read_bytes()
    biases = tflite_bias_range.read_biases(content)
    again = tflite_bias_range.leave_room_for_biases(content, biases)
    assert tflite_bias_range.read_biases(again).keys() == biases.keys()
    del biases[next(iter(biases))]
    with pytest.raises(DataError, match="is missing in the float graph"):
        tflite_bias_range.leave_room_for_biases(content, biases)
