"""Engines damaged on purpose, in their files: verification must refuse each of them.

The damage is what conversions get wrong: one answer for all, labels in another order, red and blue
exchanged, another normalization, other pictures, weights that are int8 in the file alone.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper

from lesiontk.backends import BACKENDS, list_targets, open_engine
from lesiontk.backends.onnx.graph import check_no_float_weights
from lesiontk.backends.reference_outputs import ReferenceOutputs, run_engine
from lesiontk.backends.tflite.graph import dump_model, embed_spec, operator_name, read_model
from lesiontk.backends.tflite.metadata import embed_metadata
from lesiontk.errors import DataError
from lesiontk.evaluate.signal_to_noise import measure_signal
from lesiontk.evaluate.verification import UNEXPLAINED, Verification
from lesiontk.recipe import VerifyRule
from lesiontk.records import Preprocessing
from lesiontk.stages.convert import compare_outputs
from tests.conformance.fitted_models import SPEC, FittedParent

TARGETS = ("tflite:float32", "tflite:float16", "tflite:dynamic_int8", "tflite:int8",
           "tflite:int16x8", "tflite:mixed", "onnx:float32", "onnx:float16", "onnx:int8",
           "onnx:mixed")  # fmt: skip
DERIVED = [t for t in TARGETS if not t.endswith(":float32")]

# What a damage does to a layer's weights: [out, ...] for the last one, [..., in] for the first.
Change = Callable[[NDArray[Any]], NDArray[Any]]


@pytest.fixture(scope="module")
def answers(parent: FittedParent) -> ReferenceOutputs:
    return run_engine(parent.convert("keras:float32"), parent.pictures, 1)


def judge(answers: ReferenceOutputs, file: Path, parent: FittedParent) -> Verification:
    return compare_outputs(answers, run_engine(file, parent.pictures, 1), file, VerifyRule())


def failed(verification: Verification) -> set[str]:
    return {check.name for check in verification.checks if not check.passed}


# ---------------------------------------------------------------- editing files


def change_tflite(source: Path, out: Path, first: Change, last: Change) -> None:
    """Write the engine with the weights of its first convolution and its last layer changed."""
    model = read_model(source.read_bytes())
    graph = model.subgraphs[0]
    makers = {index: op for op in graph.operators for index in op.outputs}

    def change(operator: Any, place: int, how: Change, axes: tuple[int, ...] | None) -> None:
        tensor = graph.tensors[operator.inputs[place]]
        if model.buffers[tensor.buffer].data is None:  # float16 comes through DEQUANTIZE
            tensor = graph.tensors[makers[operator.inputs[place]].inputs[0]]
        kinds = {0: np.float32, 1: np.float16, 2: np.int32, 4: np.int64, 9: np.int8}
        values = np.frombuffer(bytes(model.buffers[tensor.buffer].data), kinds[tensor.type])
        values = values.reshape(tensor.shape)
        changed = np.ascontiguousarray(how(values), dtype=values.dtype)
        model.buffers[tensor.buffer].data = np.frombuffer(changed.tobytes(), np.uint8)
        scales = None if tensor.quantization is None else tensor.quantization.scale
        if axes is not None and scales is not None and len(scales) > 1:
            moved = how(np.asarray(scales))
            tensor.quantization.scale = np.where(moved > 0, moved, scales)  # 0 is no scale

    layers = {name: [op for op in graph.operators if operator_name(model, op) == name]
              for name in ("CONV_2D", "FULLY_CONNECTED")}  # fmt: skip
    change(layers["CONV_2D"][0], 1, first, None)
    for place in (1, 2):
        change(layers["FULLY_CONNECTED"][-1], place, last, (0,))
    spec = open_spec(source)
    content = embed_spec(dump_model(model), json.dumps(asdict(spec)))
    out.write_bytes(embed_metadata(content, spec))


def change_onnx(source: Path, out: Path, first: Change, last: Change) -> None:
    """Write the engine with the weights of its first convolution and its last layer changed."""
    model = onnx.load(source)
    constants = {entry.name: entry for entry in model.graph.initializer}
    makers = {name: node for node in model.graph.node for name in node.output}

    def change(name: str, how: Change, *, with_scale: bool) -> None:
        names = [name]
        if name not in constants:
            names = list(makers[name].input[: 2 if with_scale else 1])
        for each in names:
            values = numpy_helper.to_array(constants[each])
            if values.ndim:
                changed = np.ascontiguousarray(how(values), dtype=values.dtype)
                constants[each].CopyFrom(numpy_helper.from_array(changed, each))

    conv = next(node for node in model.graph.node if node.op_type == "Conv")
    change(conv.input[1], lambda w: np.moveaxis(first(np.moveaxis(w, 1, -1)), -1, 1),
           with_scale=False)  # fmt: skip
    gemm = [node for node in model.graph.node if node.op_type == "Gemm"][-1]
    turned = not any(a.name == "transB" and a.i for a in gemm.attribute)
    change(gemm.input[1], lambda w: last(w.T).T if turned and w.ndim == 2 else last(w),
           with_scale=True)  # fmt: skip
    change(gemm.input[2], last, with_scale=True)
    onnx.save(model, out)


def open_spec(path: Path) -> Any:
    with open_engine(path) as engine:
        return engine.spec


CHANGE = {"tflite": change_tflite, "onnx": change_onnx}


def keep(weights: NDArray[Any]) -> NDArray[Any]:
    return weights


def damage(
    parent: FittedParent, target: str, folder: Path, *, first: Change = keep, last: Change = keep
) -> Path:
    source = parent.convert(target)
    out = folder / f"damaged{source.suffix}"
    CHANGE[target.partition(":")[0]](source, out, first, last)
    return out


# --------------------------------------------------------------------- damages


@pytest.mark.parametrize("target", TARGETS)
def test_written_again_unchanged_it_passes(
    target: str, parent: FittedParent, answers: ReferenceOutputs, tmp_path: Path
) -> None:
    """The twin of all below: it is the damage that fails, not the editing."""
    verification = judge(answers, damage(parent, target, tmp_path), parent)
    assert verification.passed, verification.describe_failures()
    assert verification.golden_agreement.n == 16


@pytest.mark.parametrize("target", TARGETS)
def test_one_answer_for_all_images_is_refused(
    target: str, parent: FittedParent, answers: ReferenceOutputs, tmp_path: Path
) -> None:
    file = damage(parent, target, tmp_path, last=np.zeros_like)
    assert "constant output" in failed(judge(answers, file, parent))


@pytest.mark.parametrize("target", TARGETS)
def test_labels_in_another_order_are_refused(
    target: str, parent: FittedParent, answers: ReferenceOutputs, tmp_path: Path
) -> None:
    file = damage(parent, target, tmp_path, last=lambda w: np.roll(w, 1, axis=0))
    assert "top-1 agreement" in failed(judge(answers, file, parent))


@pytest.mark.parametrize("target", ["tflite:float32", "tflite:float16", "onnx:float32"])
def test_a_weight_that_is_not_a_number_is_refused(
    target: str, parent: FittedParent, answers: ReferenceOutputs, tmp_path: Path
) -> None:
    file = damage(
        parent, target, tmp_path, last=lambda w: np.where(np.arange(len(w)) == 1, np.nan, w.T).T
    )
    assert failed(judge(answers, file, parent)) == {"share of finite outputs"}
    with open_engine(file) as engine, pytest.raises(DataError, match=r"return probabilities.* nan"):
        engine.predict(parent.pictures)


@pytest.mark.parametrize("target", TARGETS)
def test_red_and_blue_exchanged_are_refused(
    target: str, parent: FittedParent, answers: ReferenceOutputs, tmp_path: Path
) -> None:
    file = damage(parent, target, tmp_path, first=lambda w: w[..., ::-1])
    assert "top-1 agreement" in failed(judge(answers, file, parent))


@pytest.mark.parametrize("target", TARGETS)
def test_another_normalization_is_refused(
    target: str, parent: FittedParent, answers: ReferenceOutputs, tmp_path: Path
) -> None:
    """The first layer sees values half as large, as if scaled by 1/256 instead of 1/128."""
    file = damage(parent, target, tmp_path, first=lambda w: w / 2)
    assert {"mean probability drift", "golden mean drift"} <= failed(judge(answers, file, parent))


def describe_tflite(source: Path, out: Path, spec: Any) -> None:
    content = embed_spec(source.read_bytes(), json.dumps(asdict(spec)))
    out.write_bytes(embed_metadata(content, spec))


def describe_onnx(source: Path, out: Path, spec: Any) -> None:
    model = onnx.load(source)
    onnx.helper.set_model_props(model, {"lesiontk": json.dumps(asdict(spec))})
    onnx.save(model, out)


DESCRIBE = {"tflite": describe_tflite, "onnx": describe_onnx}


@pytest.mark.parametrize("target", ["tflite:int8", "onnx:int8"])
@pytest.mark.parametrize(
    "change",
    [
        {"preprocessing": Preprocessing(32, "crop")},
        {"preprocessing": Preprocessing(32, "stretch", enhance=("hair_removal",))},
        {"labels": tuple(reversed(SPEC.labels))},
        {"split_hash": "6" * 64},
    ],
    ids=["another fit", "another filter", "labels named in another order", "another split"],
)
def test_a_description_of_other_pictures_or_labels_is_refused(
    target: str,
    change: dict[str, Any],
    parent: FittedParent,
    answers: ReferenceOutputs,
    tmp_path: Path,
) -> None:
    """Its answers are right; a device would resize otherwise, or name them otherwise."""
    source = parent.convert(target)
    file = tmp_path / f"described{source.suffix}"
    DESCRIBE[target.partition(":")[0]](source, file, replace(open_spec(source), **change))
    assert failed(judge(answers, file, parent)) == {"parent's description"}


@pytest.mark.parametrize("target", ["tflite:int8", "onnx:int8"])
def test_an_engine_for_pictures_of_another_size_is_refused(
    target: str, parent: FittedParent, answers: ReferenceOutputs, tmp_path: Path
) -> None:
    source = parent.convert(target)
    file = tmp_path / f"resized{source.suffix}"
    spec = replace(open_spec(source), preprocessing=Preprocessing(48, "stretch"))
    DESCRIBE[target.partition(":")[0]](source, file, spec)
    with pytest.raises(DataError, match=r"got uint8 \[56, 32, 32, 3\]; expected .* 48, 48, 3"):
        judge(answers, file, parent)


def test_weights_that_are_int8_in_the_file_alone_are_refused(
    parent: FittedParent, answers: ReferenceOutputs, tmp_path: Path
) -> None:
    """Dynamic int8 that says it is static: it answers well and computes in float."""
    source = parent.convert("tflite:dynamic_int8")
    spec = replace(open_spec(source), precision="int8")
    describe_tflite(source, tmp_path / "pretender.tflite", spec)
    verification = judge(answers, tmp_path / "pretender.tflite", parent)
    assert failed(verification) == {"share of integer operators", UNEXPLAINED}


@pytest.mark.parametrize("target", ["tflite:int8", "tflite:int16x8", "onnx:int8", "tensorrt:int8"])
def test_one_layer_that_was_left_in_float_is_refused_by_its_name(
    target: str, parent: FittedParent, answers: ReferenceOutputs, tmp_path: Path
) -> None:
    """It answers well, and all but a few of its weights and operators are int8."""
    name, _, precision = target.partition(":")
    backend = BACKENDS.get(name)()
    source = parent.convert(backend.info.precisions[precision].derived_from)
    layer = backend.list_layers(source)[0]
    plan = replace(parent.plan, float_layers=frozenset({layer}))
    spec = replace(SPEC, backend=name, precision=precision)
    record = backend.convert(source, precision, spec, plan, tmp_path, examine=False)
    verification = judge(answers, tmp_path / record.file, parent)
    assert failed(verification) == {UNEXPLAINED}
    (check,) = (check for check in verification.checks if check.name == UNEXPLAINED)
    assert check.found[0].lower().startswith("conv")  # what only moves its values may follow
    assert check.found[0] in verification.describe_failures()


@pytest.mark.parametrize(
    ("target", "pretended", "check"),
    [
        ("tflite:float32", "int8", "share of int8 weights"),
        ("tflite:float32", "float16", "share of float16 weights"),
        ("tflite:float16", "dynamic_int8", "share of int8 weights"),
        ("onnx:float32", "float16", "share of float16 weights"),
        ("onnx:float32", "int8", "share of int8 weights"),
    ],
)
def test_weights_wider_than_the_name_says_are_refused(
    target: str,
    pretended: str,
    check: str,
    parent: FittedParent,
    answers: ReferenceOutputs,
    tmp_path: Path,
) -> None:
    source = parent.convert(target)
    file = tmp_path / f"pretender{source.suffix}"
    spec = replace(open_spec(source), precision=pretended)
    DESCRIBE[target.partition(":")[0]](source, file, spec)
    assert check in failed(judge(answers, file, parent))


# ----------------------------------------------------------- float copies in ONNX


def test_a_float_copy_of_a_quantized_weight_is_found(parent: FittedParent) -> None:
    model = onnx.load(parent.convert("onnx:int8"))
    check_no_float_weights(model)
    copy = numpy_helper.from_array(np.zeros((128, 7), np.float32), "forgotten")
    model.graph.initializer.append(copy)
    with pytest.raises(DataError, match="contains forgotten, which no node reads"):
        check_no_float_weights(model)


def test_a_layer_that_was_left_in_float_is_found(parent: FittedParent) -> None:
    model = onnx.load(parent.convert("onnx:int8"))
    conv = next(node for node in model.graph.node if node.op_type == "Conv")
    (maker,) = [node for node in model.graph.node if conv.input[1] in node.output]
    values = {e.name: numpy_helper.to_array(e) for e in model.graph.initializer}
    weights = values[maker.input[0]].astype(np.float32)
    model.graph.initializer.append(numpy_helper.from_array(weights, "wide"))
    conv.input[1] = "wide"
    with pytest.raises(DataError, match=r"Conv .* has float weights; expected int8"):
        check_no_float_weights(model)


# ------------------------------------------------------------------------ layers


@pytest.mark.parametrize("target", DERIVED)
def test_every_layer_keeps_its_signal(target: str, parent: FittedParent) -> None:
    name = target.partition(":")[0]
    readers = BACKENDS.get(name)().read_both(
        parent.convert(f"{name}:float32"), parent.convert(target)
    )
    report = measure_signal(*readers, (image[np.newaxis] for image in parent.pictures[:4]))
    assert report.n == 4
    assert len(report.layers) >= 14  # six convolutions, pools, the mean, two dense layers, Softmax
    assert report.worst(1)[0].decibels > (45 if target.endswith("float16") else 15)
    assert {layer.tensor for layer in report.layers} <= set(readers[0](parent.pictures[:1]))


@pytest.mark.parametrize("target", ["tflite:int8", "onnx:int8"])
def test_the_layer_that_was_damaged_is_named(
    target: str, parent: FittedParent, tmp_path: Path
) -> None:
    name = target.partition(":")[0]
    file = damage(parent, target, tmp_path, last=lambda w: np.roll(w, 1, axis=0))
    readers = BACKENDS.get(name)().read_both(parent.convert(f"{name}:float32"), file)
    report = measure_signal(*readers, (image[np.newaxis] for image in parent.pictures[:4]))
    worst = {layer.tensor for layer in report.worst(2)}
    last = [layer.tensor for layer in report.layers][-2:]
    assert worst == set(last)
    assert report.worst(3)[2].decibels > 15


def test_every_derived_target_is_damaged_here() -> None:
    """A new precision of these back ends has to be put into the list above."""
    known = [t for t in list_targets() if t.partition(":")[0] in ("tflite", "onnx")]
    assert sorted(known) == sorted(TARGETS)
