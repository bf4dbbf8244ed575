"""OpenVINO runs the graphs of ONNX Runtime, with the same answers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from lesiontk.backends import BACKENDS, open_engine
from lesiontk.backends.onnx.backend import WEIGHT_BITS
from lesiontk.backends.openvino.backend import UNBIASED
from lesiontk.bench.layer_profile import profile_engine
from lesiontk.data.synthetic.dataset import render_view
from lesiontk.errors import DataError
from tests.conformance.fitted_models import FittedParent
from tests.deploy.bundles import ENGINES

pytest.importorskip("openvino", reason="OpenVINO is not installed")
INT8 = ENGINES / "onnx_int8.onnx"


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The published int8 engine for OpenVINO."""
    folder = tmp_path_factory.mktemp("openvino")
    with open_engine(INT8) as engine:
        spec = replace(engine.spec, backend="openvino")
    backend = BACKENDS.get("openvino")()
    record = backend.convert(INT8, "int8", spec, None, folder)
    assert all(name.startswith("Softmax") for name in record.float_operators)
    return folder / record.file


def draw(size: int) -> NDArray[np.uint8]:
    return np.stack([render_view(name, 5, view, size) for name in ("mel", "nv") for view in (0, 1)])


def test_an_int8_engine_answers_as_in_onnx_runtime(converted: Path) -> None:
    with open_engine(INT8) as known, open_engine(converted) as engine:
        images = draw(known.spec.preprocessing.image_size)
        expected = known.predict(images)
        np.testing.assert_allclose(engine.predict(images), expected, atol=0.02)
        assert engine.spec == replace(known.spec, backend="openvino")
        (execution,) = engine.describe_execution()
        assert (execution.used, execution.fell_back) == ("CPU", False)


def test_its_counters_name_the_layers_of_the_model(converted: Path) -> None:
    found = profile_engine(converted, rounds=5, threads=1)
    layers = {layer.layer: layer for layer in found.layers}
    assert {f"block{number}_conv" for number in range(1, 7)} < set(layers)
    assert layers["block1_conv"].macs == 128 * 128 * 24 * 27
    assert layers["block1_conv"].median_ms > 0
    assert found.engine == "openvino:int8"


def test_threads_do_not_change_the_answers(converted: Path, parent: FittedParent) -> None:
    for path, images in ((converted, None), (parent.convert("openvino:int8"), parent.pictures[:8])):
        answers = []
        for threads in (1, 2):
            with open_engine(path, threads=threads) as engine:
                known = draw(engine.spec.preprocessing.image_size) if images is None else images
                answers.append(engine.predict(known))
        np.testing.assert_allclose(answers[0], answers[1], atol=1e-5)


def test_a_layer_without_bias_stays_in_float_and_the_reason_is_known(parent: FittedParent) -> None:
    path = parent.convert("openvino:int8")
    before, after = onnx.load(parent.convert("onnx:int8")), onnx.load(path)
    (unbiased,) = [node for node in after.graph.node if node.op_type == "MatMul"]
    weights = {entry.name: entry for entry in after.graph.initializer}[unbiased.input[1]]
    assert weights.data_type == onnx.TensorProto.FLOAT
    onnx.checker.check_model(after, full_check=True)
    assert len(after.graph.node) == len(before.graph.node) - 1
    backend = BACKENDS.get("openvino")()
    names = backend.list_float_operators(path, "int8")
    (left,) = [name for name in names if name.startswith("MatMul")]
    assert backend.explain_float_operator(left, "int8") == UNBIASED
    assert backend.list_unexplained(path, "int8") == ()


@pytest.mark.parametrize("bits", [7, 8])
def test_the_bits_of_the_weights_are_those_of_the_source(bits: int, tmp_path: Path) -> None:
    model = onnx.load(INT8)
    kept = [entry for entry in model.metadata_props if entry.key != WEIGHT_BITS]
    del model.metadata_props[:]
    model.metadata_props.extend(kept)
    if bits == 7:
        model.metadata_props.add(key=WEIGHT_BITS, value="7")
    onnx.save(model, tmp_path / "source.onnx")
    with open_engine(INT8) as engine:
        spec = replace(engine.spec, backend="openvino")
    (tmp_path / "out").mkdir()
    backend = BACKENDS.get("openvino")()
    record = backend.convert(tmp_path / "source.onnx", "int8", spec, None, tmp_path / "out")
    assert record.quantization.weight_bits == bits


def test_a_damaged_file_is_refused(converted: Path, tmp_path: Path) -> None:
    model = onnx.load(converted)
    model.graph.node[3].op_type = "Nonsense"
    onnx.save(model, tmp_path / "damaged.onnx")
    with pytest.raises(DataError, match=r"damaged.onnx is not a model that OpenVINO can load"):
        open_engine(tmp_path / "damaged.onnx")


def test_a_damaged_name_is_refused(converted: Path, tmp_path: Path) -> None:
    content = converted.read_bytes()
    name = onnx.load(converted).graph.node[-1].input[0].encode()
    at = content.index(name, content.index(name) + 1)  # where the tensor is read, after it is made
    (tmp_path / "damaged.onnx").write_bytes(content[:at] + b"\xbd" + content[at + 1 :])
    with pytest.raises(DataError, match=r"damaged.onnx is not a model that OpenVINO can load"):
        open_engine(tmp_path / "damaged.onnx")
