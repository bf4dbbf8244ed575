"""What every registered back end must do, in every precision it offers."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray

from lesiontk.backends import BACKENDS, list_targets, open_engine
from lesiontk.backends.backend import Engine, EngineStructure
from lesiontk.backends.onnx.graph import INPUT, OUTPUT
from lesiontk.errors import DataError, LesionTKError, UsageError
from tests.conformance.fitted_models import SPEC, FittedParent
from tests.conformance.subjects import DESCRIBE

TARGETS = list_targets()
INT8 = [target for target in TARGETS if target.endswith(":int8")]
CALIBRATED = [
    target
    for target in INT8
    if BACKENDS.get(target.partition(":")[0]).info.precisions["int8"].calibrated
]
# OpenVINO keeps a layer without bias in float; see test_openvino.py.
WHOLE = [target for target in INT8 if not target.startswith("openvino")]
FLOAT = [target for target in TARGETS if target.endswith(":float32")]
IN_ONNX = [target for target in TARGETS if target.startswith(("onnx:", "openvino:", "tensorrt:"))]


@pytest.fixture
def file(parent: FittedParent, target: str) -> Path:
    """The engine file of the target; skips where its back end cannot run."""
    availability = BACKENDS.get(target.partition(":")[0])().available()
    if not availability.available:
        pytest.skip(availability.reason)
    return parent.convert(target)


@pytest.fixture
def engine(file: Path) -> Iterator[Engine]:
    with open_engine(file) as opened:
        yield opened


def inspect(target: str, path: Path) -> EngineStructure:
    return BACKENDS.get(target.partition(":")[0])().inspect(path)


# --------------------------------------------------------------------- answers


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("count", [1, 3])
def test_uint8_images_give_float_probabilities(
    target: str, count: int, engine: Engine, parent: FittedParent
) -> None:
    probabilities = engine.predict(parent.pictures[:count])
    assert probabilities.dtype == np.float32
    assert probabilities.shape == (count, 7)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-5)
    assert (probabilities >= 0).all()


@pytest.mark.parametrize("target", TARGETS)
def test_an_image_gets_one_answer_alone_and_among_others(
    target: str, engine: Engine, parent: FittedParent
) -> None:
    together = engine.predict(parent.pictures[:3])
    alone = np.concatenate([engine.predict(parent.pictures[i : i + 1]) for i in range(3)])
    np.testing.assert_allclose(together, alone, atol=1e-5)
    assert np.ptp(together, axis=0).max() > 0.1  # the three are answered differently


@pytest.mark.parametrize("target", TARGETS)
def test_no_image_gives_no_answer(target: str, engine: Engine, parent: FittedParent) -> None:
    assert engine.predict(parent.pictures[:0]).shape == (0, 7)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize(
    ("damage", "received"),
    [
        (lambda images: images.astype(np.float32), r"float32 \[2, 32, 32, 3\]"),
        (lambda images: images.astype(np.int8), r"int8 \[2, 32, 32, 3\]"),
        (lambda images: images[0], r"uint8 \[32, 32, 3\]"),
        (lambda images: images[:, :-1], r"uint8 \[2, 31, 32, 3\]"),
        (lambda images: images.transpose(0, 3, 1, 2), r"uint8 \[2, 3, 32, 32\]"),
        (lambda images: images[..., :1], r"uint8 \[2, 32, 32, 1\]"),
    ],
    ids=["float", "signed", "one image", "another size", "channels first", "grey"],
)
def test_other_input_is_refused_with_what_was_received_and_expected(
    target: str,
    damage: Callable[[NDArray[np.uint8]], Any],
    received: str,
    engine: Engine,
    parent: FittedParent,
) -> None:
    with pytest.raises(DataError, match=received + r"; expected uint8 \[N, 32, 32, 3\] in RGB"):
        engine.predict(damage(parent.pictures[:2]))


@pytest.mark.parametrize("target", TARGETS)
def test_it_agrees_with_the_model_it_was_made_from(
    target: str, engine: Engine, parent: FittedParent
) -> None:
    verification = parent.verify(target, engine.predict(parent.pictures))
    assert verification.passed, [str(check) for check in verification.checks]


@pytest.mark.parametrize("target", TARGETS)
def test_verification_sees_labels_in_another_order(
    target: str, engine: Engine, parent: FittedParent
) -> None:
    outputs = engine.predict(parent.pictures)
    assert not parent.verify(target, np.roll(outputs, 1, axis=1)).passed


@pytest.mark.parametrize("target", TARGETS)
def test_verification_sees_red_and_blue_exchanged(
    target: str, engine: Engine, parent: FittedParent
) -> None:
    assert not parent.verify(target, engine.predict(parent.pictures[..., ::-1])).passed


@pytest.mark.parametrize("target", TARGETS)
def test_verification_sees_one_answer_for_all_images(
    target: str, engine: Engine, parent: FittedParent
) -> None:
    outputs = np.repeat(engine.predict(parent.pictures[:1]), len(parent.pictures), axis=0)
    assert not parent.verify(target, outputs).passed


# ----------------------------------------------------------------- description


@pytest.mark.parametrize("target", TARGETS)
def test_its_file_carries_labels_preprocessing_and_split(target: str, engine: Engine) -> None:
    backend, _, precision = target.partition(":")
    assert engine.spec == replace(SPEC, backend=backend, precision=precision)


@pytest.mark.parametrize("target", FLOAT)
def test_a_file_without_a_description_is_refused(target: str, file: Path, tmp_path: Path) -> None:
    stranger = tmp_path / f"stranger{file.suffix}"
    DESCRIBE[target.partition(":")[0]](file, stranger, None)
    with pytest.raises(DataError, match=f"{stranger.name} contains no lesiontk description"):
        open_engine(stranger)


def describe_wrongly(**changes: Any) -> str:
    return json.dumps({**asdict(SPEC), **changes})


BROKEN_DESCRIPTIONS = {
    "not JSON": "{",
    "no document": "[]",
    "lacks keys": "{}",
    "unknown key": describe_wrongly(colour="red"),
    "one label": describe_wrongly(labels=["nv"]),
    "no preprocessing": describe_wrongly(preprocessing=7),
}


@pytest.mark.parametrize("target", FLOAT)
@pytest.mark.parametrize("text", BROKEN_DESCRIPTIONS.values(), ids=BROKEN_DESCRIPTIONS)
def test_a_broken_description_is_refused(
    target: str, text: str, file: Path, tmp_path: Path
) -> None:
    broken = tmp_path / f"broken{file.suffix}"
    DESCRIBE[target.partition(":")[0]](file, broken, text)
    with pytest.raises(DataError):
        open_engine(broken)


# ---------------------------------------------------------------- broken files


def cut(share: float) -> Callable[[bytes], bytes]:
    return lambda content: content[: int(len(content) * share)]


BROKEN_FILES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda content: b"",
    "text": lambda content: b"this is no engine",
    "first bytes only": lambda content: content[:24],
    "cut in the middle": cut(0.5),
    "cut near its end": cut(0.999),
    "noise behind the mark": lambda content: content[:8] + os.urandom(4096),
}


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("damage", BROKEN_FILES.values(), ids=BROKEN_FILES)
def test_a_broken_file_is_an_error_that_names_it(
    target: str, damage: Callable[[bytes], bytes], file: Path, tmp_path: Path
) -> None:
    broken = tmp_path / f"broken{file.suffix}"
    broken.write_bytes(damage(file.read_bytes()))
    with pytest.raises(LesionTKError, match=broken.name):
        open_engine(broken)


def test_a_keras_file_with_a_damaged_model_is_an_error_that_names_it(
    parent: FittedParent, tmp_path: Path
) -> None:
    broken = tmp_path / "broken.keras"
    with (
        zipfile.ZipFile(parent.convert("keras:float32")) as old,
        zipfile.ZipFile(broken, "w") as new,
    ):
        for name in old.namelist():
            new.writestr(name, b"damaged" if name == "model.weights.h5" else old.read(name))
    with pytest.raises(DataError, match=r"broken\.keras contains weights that cannot be read"):
        open_engine(broken)


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        open_engine(tmp_path / "absent.tflite")


def test_a_suffix_of_no_back_end_is_refused(tmp_path: Path) -> None:
    (tmp_path / "engine.pth").write_bytes(b"")
    with pytest.raises(DataError, match=r"expected one of \.keras, \.tflite, \.onnx"):
        open_engine(tmp_path / "engine.pth")


# ------------------------------------------------------------------- structure


@pytest.mark.parametrize("target", WHOLE)
def test_its_int8_weights_are_int8_and_only_softmax_is_left_in_float(
    target: str, file: Path, parent: FittedParent
) -> None:
    structure = inspect(target, file)
    assert structure.int8_weight_share >= 0.99
    assert structure.operators["float32"] == 1
    (left,) = parent.records[target].float_operators
    assert left.lower().startswith("softmax")


@pytest.mark.parametrize("target", FLOAT)
def test_its_float_weights_are_float(target: str, file: Path) -> None:
    structure = inspect(target, file)
    assert structure.int8_weight_share == 0
    parameters = 4 * 680_000  # bytes; the plain CNN has 0.68 million weights
    assert structure.weight_bytes["float32"] == pytest.approx(parameters, rel=0.1)


@pytest.mark.parametrize("target", INT8)
def test_int8_takes_about_a_quarter_of_the_bytes(
    target: str, file: Path, parent: FittedParent
) -> None:
    full = parent.convert(target.replace("int8", "float32"))
    assert file.stat().st_size < 0.35 * full.stat().st_size


def read_tflite_input(path: Path) -> tuple[float, int]:
    from ai_edge_litert.interpreter import Interpreter

    (detail,) = Interpreter(model_content=path.read_bytes()).get_input_details()
    assert detail["dtype"] == np.uint8
    scale, zero_point = detail["quantization"]
    return scale, zero_point


def read_onnx_input(path: Path) -> tuple[float, int]:
    model = onnx.load(path)
    constants = {e.name: onnx.numpy_helper.to_array(e) for e in model.graph.initializer}
    assert model.graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.UINT8
    (user,) = [node for node in model.graph.node if INPUT in node.input]
    if user.op_type == "Transpose":
        (user,) = [node for node in model.graph.node if user.output[0] in node.input]
    assert user.op_type == "DequantizeLinear"
    return float(constants[user.input[1]]), int(constants[user.input[2]])


def read_tensorrt_input(path: Path) -> tuple[float, int]:
    """The scale of the first QuantizeLinear, and the byte that it makes zero; none are merged."""
    model = onnx.load(path)
    constants = {e.name: onnx.numpy_helper.to_array(e) for e in model.graph.initializer}
    first = next(node for node in model.graph.node if node.op_type == "QuantizeLinear")
    kind = onnx.TensorProto.INT8
    model.graph.output.append(onnx.helper.make_tensor_value_info(first.output[0], kind, None))
    image = np.resize(np.arange(256, dtype=np.uint8), (1, 32, 32, 3))
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    values = np.unique(session.run([first.output[0]], {INPUT: image})[0])
    assert len(values) == 256
    return float(constants[first.input[1]]), int(np.flatnonzero(values == 0)[0])


READ_INPUT = {
    "tflite": read_tflite_input,
    "onnx": read_onnx_input,
    "openvino": read_onnx_input,
    "tensorrt": read_tensorrt_input,
}


@pytest.mark.parametrize("target", INT8)
def test_the_scale_of_its_input_bytes_is_the_normalization(target: str, file: Path) -> None:
    scale, zero_point = READ_INPUT[target.partition(":")[0]](file)
    assert scale == pytest.approx(1 / 128, rel=1e-6)
    assert zero_point == 128


# ----------------------------------------------------------------- conversions


@pytest.mark.parametrize("target", CALIBRATED)
def test_int8_without_a_plan_is_refused(
    target: str, file: Path, parent: FittedParent, tmp_path: Path
) -> None:
    name, _, precision = target.partition(":")
    source = parent.convert(BACKENDS.get(name).info.precisions[precision].derived_from)
    with pytest.raises(UsageError, match="needs a quantization plan"):
        BACKENDS.get(name)().convert(source, precision, SPEC, None, tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.usefixtures("separate_tf2onnx")
def test_converting_again_gives_the_same_bytes(
    target: str, file: Path, parent: FittedParent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONHASHSEED", "7")  # tf2onnx gave other graphs to other seeds
    again = parent.convert_into(target, tmp_path)
    assert (tmp_path / again.file).read_bytes() == file.read_bytes()


def test_a_file_that_tf2onnx_cannot_read_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "broken.tflite").write_bytes(b"this is no model")
    with pytest.raises(DataError, match=r"tf2onnx cannot convert broken\.tflite"):
        BACKENDS.get("onnx")().convert(
            tmp_path / "broken.tflite", "float32", SPEC, None, tmp_path / "out"
        )


@pytest.mark.parametrize("target", IN_ONNX)
def test_an_onnx_engine_keeps_to_opset_17(target: str, file: Path) -> None:
    model = onnx.load(file)
    onnx.checker.check_model(model, full_check=True)
    versions = {entry.domain: entry.version for entry in model.opset_import}
    assert versions[""] == 17
    used = {node.domain for node in model.graph.node}
    assert used == {""}  # no runtime's own operators
    assert [entry.name for entry in model.graph.input] == [INPUT]
    assert [entry.name for entry in model.graph.output] == [OUTPUT]


@pytest.mark.parametrize("target", [target for target in WHOLE if target in IN_ONNX])
def test_an_int8_onnx_engine_keeps_no_float_weight(target: str, file: Path) -> None:
    model = onnx.load(file)
    constants = {e.name: onnx.numpy_helper.to_array(e) for e in model.graph.initializer}
    makers = {name: node for node in model.graph.node for name in node.output}
    weighted = [node for node in model.graph.node if node.op_type in ("Conv", "Gemm", "MatMul")]
    assert len(weighted) == 8  # six convolutions, two dense layers
    for node in weighted:
        maker = makers[node.input[1]]
        assert maker.op_type == "DequantizeLinear"
        assert constants[maker.input[0]].dtype == np.int8
    assert max(v.size for v in constants.values() if v.dtype == np.float32) < 1000
