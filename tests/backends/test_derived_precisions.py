"""What is derived from a float engine: its types, its rounding, its corrected biases."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from lesiontk.backends import BACKENDS
from lesiontk.backends.onnx.backend import quantize_static as quantize_onnx
from lesiontk.backends.onnx.backend import tensor_reader as onnx_reader
from lesiontk.backends.onnx.bias_correction import correct_biases as correct_onnx
from lesiontk.backends.tflite.bias_correction import WEIGHTED, correct_biases
from lesiontk.backends.tflite.graph import constant, operator_name, read_model
from lesiontk.backends.tflite.quantization import quantize_static
from lesiontk.backends.tflite.tensors import tensor_reader
from lesiontk.calibration.bias_correction import round_weights
from lesiontk.errors import DataError
from tests.conformance.fitted_models import FittedParent

TinyParent = Callable[[str], FittedParent]


def inspect(parent: FittedParent, target: str) -> Any:
    return BACKENDS.get(target.partition(":")[0])().inspect(parent.convert(target))


# ------------------------------------------------------------------ precisions


def test_float16_halves_the_weights(tiny_parent: TinyParent) -> None:
    parent = tiny_parent("cnn")
    for name in ("tflite", "onnx"):
        structure = inspect(parent, f"{name}:float16")
        assert structure.float16_weight_share >= 0.99
        assert structure.int8_weight_share == 0
        assert structure.integer_operator_share == 0
        assert inspect(parent, f"{name}:float32").float16_weight_share == 0


def test_dynamic_int8_has_int8_weights_and_computes_in_float_between_layers(
    tiny_parent: TinyParent,
) -> None:
    structure = inspect(tiny_parent("cnn"), "tflite:dynamic_int8")
    assert structure.int8_weight_share >= 0.99
    assert structure.integer_operator_share == 0
    assert tiny_parent("cnn").records["tflite:dynamic_int8"].float_operators == ()


def test_int16x8_has_int8_weights_and_int16_activations(tiny_parent: TinyParent) -> None:
    structure = inspect(tiny_parent("cnn"), "tflite:int16x8")
    assert structure.int8_weight_share >= 0.99
    assert structure.operators["int16"] == sum(structure.operators.values()) - 1
    (left,) = tiny_parent("cnn").records["tflite:int16x8"].float_operators
    assert left.startswith("SOFTMAX")


def test_int16x8_is_nearer_to_its_parent_than_int8(tiny_parent: TinyParent) -> None:
    parent = tiny_parent("resnet")
    drift = {}
    for precision in ("int8", "int16x8", "float16"):
        with BACKENDS.get("tflite")().open(parent.convert(f"tflite:{precision}")) as engine:
            drift[precision] = np.abs(engine.predict(parent.pictures) - parent.outputs).mean()
    assert drift["float16"] < drift["int16x8"] < drift["int8"]


@pytest.mark.parametrize("name", ["cnn", "lite", "resnet", "vgg"])
@pytest.mark.parametrize("precision", ["float16", "dynamic_int8", "int16x8"])
def test_every_normalization_survives(name: str, precision: str, tiny_parent: TinyParent) -> None:
    parent = tiny_parent(name)
    with BACKENDS.get("tflite")().open(parent.convert(f"tflite:{precision}")) as engine:
        right = parent.verify(f"tflite:{precision}", engine.predict(parent.pictures))
        darker = parent.verify(f"tflite:{precision}", engine.predict(parent.pictures // 2))
    assert right.passed, right.describe_failures()
    assert not darker.passed


def test_records_say_how_it_was_quantized(tiny_parent: TinyParent) -> None:
    parent = tiny_parent("cnn")
    expected = {
        "tflite:int8": {"weight_bits": 8, "activation_bits": 8, "corrected_biases": 3},
        "tflite:int16x8": {"weight_bits": 8, "activation_bits": 16, "corrected_biases": 3},
        "tflite:dynamic_int8": {"weight_bits": 8},
        "tflite:float16": {},
        "onnx:int8": {"weight_bits": 8, "activation_bits": 8, "corrected_biases": 3},
        "onnx:float16": {},
    }
    for target, facts in expected.items():
        parent.convert(target)
        assert parent.records[target].quantization.to_document() == facts


# -------------------------------------------------------------------- rounding


def stored_tflite(content: bytes) -> list[NDArray[np.float64]]:
    """Return each layer's weights as the file stores them, in real values, in its order."""
    model = read_model(content)
    graph = model.subgraphs[0]
    found = []
    for operator in graph.operators:
        if operator_name(model, operator) in WEIGHTED:
            tensor = graph.tensors[operator.inputs[1]]
            values = np.frombuffer(bytes(model.buffers[tensor.buffer].data), np.int8)
            scale = np.asarray(tensor.quantization.scale, np.float64)
            values = values.reshape(tensor.shape).astype(np.float64)
            found.append(values * scale.reshape(-1, *[1] * (values.ndim - 1)))
    return found


def test_tflite_stores_the_weights_that_the_correction_reckons_with(
    tiny_parent: TinyParent,
) -> None:
    parent = tiny_parent("cnn")
    stored = stored_tflite(parent.convert("tflite:int8").read_bytes())
    model = read_model(parent.convert("tflite:float32").read_bytes())
    graph = model.subgraphs[0]
    layers = [op for op in graph.operators if operator_name(model, op) in WEIGHTED]
    assert len(layers) == len(stored) == 3
    for layer, found in zip(layers, stored, strict=True):
        weights = np.asarray(constant(model, graph, layer.inputs[1])).reshape(1, len(found), -1)
        rounded = round_weights(weights[..., np.newaxis, np.newaxis], 127)
        np.testing.assert_allclose(found.reshape(rounded.shape), rounded, atol=1e-7)


@pytest.mark.parametrize(("reduce_range", "limit"), [(False, 127), (True, 64)])
def test_onnx_stores_the_weights_that_the_correction_reckons_with(
    reduce_range: bool, limit: int, tiny_parent: TinyParent
) -> None:
    parent = tiny_parent("cnn")
    source = onnx.load(parent.convert("onnx:float32"))
    floats = {e.name: numpy_helper.to_array(e) for e in source.graph.initializer}
    wide = [floats[n.input[1]] for n in source.graph.node if n.op_type in ("Conv", "Gemm")]
    plan = replace(parent.plan, reduce_range=reduce_range)
    model, facts = quantize_onnx(source, plan)
    assert facts.weight_bits == (7 if reduce_range else 8)
    values = {e.name: numpy_helper.to_array(e) for e in model.graph.initializer}
    makers = {name: node for node in model.graph.node for name in node.output}
    layers = [node for node in model.graph.node if node.op_type in ("Conv", "Gemm")]
    assert len(layers) == len(wide) == 3
    for node, weights in zip(layers, wide, strict=True):
        stored, scale = (values[name] for name in makers[node.input[1]].input[:2])
        assert stored.dtype == np.int8
        assert np.abs(stored.astype(int)).max() == limit
        turned = node.op_type == "Gemm" and not any(
            a.name == "transB" and a.i for a in node.attribute
        )
        if turned:
            stored, weights = stored.T, weights.T
        found = stored.astype(np.float64) * scale.reshape(-1, *[1] * (stored.ndim - 1))
        rounded = round_weights(weights.reshape(1, len(weights), -1, 1, 1), limit)
        np.testing.assert_allclose(found.reshape(rounded.shape), rounded, atol=1e-6)


# ------------------------------------------------------------- bias correction


def mean_logits(read: Callable[[Any], dict[str, NDArray[Any]]], name: str, images: Any) -> Any:
    return np.mean([read(image[np.newaxis])[name][0] for image in images], axis=0)


def test_it_brings_the_mean_of_every_layer_nearer(tiny_parent: TinyParent) -> None:
    """The same plan without the correction is the twin that must be worse."""
    parent = tiny_parent("vgg")
    content = parent.convert("tflite:float32").read_bytes()
    read = tensor_reader(content)
    errors = {}
    for correct in (True, False):
        quantized, count = quantize_static(content, replace(parent.plan, correct_bias=correct), 16)
        assert count == (3 if correct else 0)
        mine = tensor_reader(quantized)
        total = 0.0
        for name in read(parent.pictures[:1]):
            if "second" in name or "logits" in name:
                means = [mean_logits(r, name, parent.plan.images) for r in (read, mine)]
                total += float(np.abs(means[0] - means[1]).mean() / np.abs(means[0]).mean())
        errors[correct] = total
    assert errors[True] < 0.5 * errors[False]


def test_a_bias_that_layers_share_is_corrected_for_each(tiny_parent: TinyParent) -> None:
    from lesiontk.backends.tflite.graph import dump_model

    parent = tiny_parent("cnn")
    model = read_model(parent.convert("tflite:float32").read_bytes())
    graph = model.subgraphs[0]
    layers = [op for op in graph.operators if operator_name(model, op) in WEIGHTED]
    first, second = layers[0], layers[1]
    width = int(graph.tensors[first.inputs[1]].shape[0])
    graph.tensors[second.inputs[1]].shape[0] = width  # as wide as the first, so that both can share
    shared = dump_model(model)
    model = read_model(shared)
    graph = model.subgraphs[0]
    layers = [op for op in graph.operators if operator_name(model, op) in WEIGHTED]
    layers[1].inputs = [*list(layers[1].inputs)[:2], layers[0].inputs[2]]
    data = model.buffers[graph.tensors[layers[1].inputs[1]].buffer]
    size = int(np.prod(graph.tensors[layers[1].inputs[1]].shape)) * 4
    data.data = np.frombuffer(bytes(data.data)[:size], np.uint8)
    before = np.array(constant(model, graph, layers[0].inputs[2]))

    def read(image: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
        generator = np.random.default_rng(0)
        return {
            tensor.name.decode(): generator.uniform(0, 1, [max(1, n) for n in tensor.shape])
            for tensor in graph.tensors
            if tensor.shape is not None and len(tensor.shape) in (2, 4)
        }

    corrected, count = correct_biases(dump_model(model), read, [parent.pictures[:1]])
    assert count == 3
    result = read_model(corrected)
    layers = [op for op in result.subgraphs[0].operators if operator_name(result, op) in WEIGHTED]
    biases = [
        np.array(constant(result, result.subgraphs[0], layer.inputs[2])) for layer in layers[:2]
    ]
    assert layers[0].inputs[2] != layers[1].inputs[2]
    assert not np.allclose(biases[0], biases[1])
    for bias in biases:
        assert not np.allclose(bias, before)
        np.testing.assert_allclose(bias, before, atol=0.2)


def make_onnx(padding: dict[str, Any], bias: bool) -> onnx.ModelProto:
    """One convolution with stride 2 over uint8 images, for every way to say its padding."""
    generator = np.random.default_rng(1)
    weights = generator.normal(size=(5, 3, 3, 3)).astype(np.float32)
    constants = [numpy_helper.from_array(weights, "w")]
    inputs = ["planes", "w"]
    if bias:
        constants.append(numpy_helper.from_array(np.arange(5, dtype=np.float32), "b"))
        inputs.append("b")
    nodes = [
        helper.make_node("Cast", ["image"], ["real"], to=onnx.TensorProto.FLOAT),
        helper.make_node("Transpose", ["real"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", inputs, ["probabilities"], "conv", strides=[2, 2], **padding),
    ]
    graph = helper.make_graph(
        nodes,
        "one",
        [helper.make_tensor_value_info("image", onnx.TensorProto.UINT8, [1, 8, 9, 3])],
        [
            helper.make_tensor_value_info(
                "probabilities", onnx.TensorProto.FLOAT, [1, 5, None, None]
            )
        ],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    return model


@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
@pytest.mark.parametrize(
    "padding",
    [
        {},
        {"pads": [1, 0, 1, 2]},
        {"auto_pad": "SAME_UPPER"},
        {"auto_pad": "SAME_LOWER"},
        {"auto_pad": "VALID"},
        {"dilations": [2, 1], "pads": [2, 1, 2, 1]},
    ],
    ids=["none", "explicit", "same upper", "same lower", "valid", "dilated"],
)
def test_onnx_padding_is_reckoned_with(padding: dict[str, Any], bias: bool) -> None:
    model = make_onnx(padding, bias)
    images = [np.random.default_rng(i).integers(0, 256, (1, 8, 9, 3), np.uint8) for i in range(3)]
    read = onnx_reader(model)
    expected = np.mean([read(i)["probabilities"].mean(axis=(2, 3)) for i in images], axis=0)
    assert correct_onnx(model, read, images, 7) == 1
    for entry in model.graph.initializer:  # what int8 would store, in a coarse grid
        if entry.name == "w":
            weights = numpy_helper.to_array(entry)
            rounded = round_weights(weights[np.newaxis], 7)[0].astype(np.float32)
            entry.CopyFrom(numpy_helper.from_array(rounded, "w"))
    onnx.checker.check_model(model, full_check=True)
    read = onnx_reader(model)
    received = np.mean([read(i)["probabilities"].mean(axis=(2, 3)) for i in images], axis=0)
    np.testing.assert_allclose(received, expected, rtol=1e-4, atol=1e-3)


def test_without_images_there_is_no_mean() -> None:
    model = make_onnx({}, True)
    with pytest.raises(DataError, match="needs calibration images; got none"):
        correct_onnx(model, onnx_reader(model), [], 127)
