"""int8 on ONNX Runtime answers the same on every CPU."""

from __future__ import annotations

import base64
import platform
import shutil
import subprocess
import sys
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from lesiontk.backends import open_engine
from lesiontk.backends.backend import dump_spec
from lesiontk.backends.onnx.backend import WEIGHT_BITS, ONNXEngine
from lesiontk.backends.onnx.graph import embed_spec
from lesiontk.backends.onnx.int8_kernels import EXACT, exact_entries, kernels_overflow
from tests.backends.tensorrt.graphs import SIZE, SPEC, make_model

INPUTS = 3 * SIZE * SIZE
WHITE = np.full((1, SIZE, SIZE, 3), 255, np.uint8)


def saturating_model(weight: int) -> onnx.ModelProto:
    """A dense layer in int8 whose first logit is 1 for a white image, the second one half."""
    weights = np.zeros((INPUTS, 3), np.int8)
    weights[:, 0], weights[:, 1] = weight, weight // 2
    constants = {
        "pixel_scale": np.float32(1 / 255),
        "pixel_zero": np.uint8(0),
        "weights": weights,
        "weight_scale": np.full(3, 1 / (INPUTS * weight), np.float32),
        "weight_zero": np.zeros(3, np.int8),
        "logit_scale": np.float32(1 / 200),
        "flat": np.array([1, INPUTS], np.int64),
    }
    node = helper.make_node
    pixels, logits = ["pixel_scale", "pixel_zero"], ["logit_scale", "pixel_zero"]
    nodes = [
        node("DequantizeLinear", ["image", *pixels], ["real"]),
        node("Reshape", ["real", "flat"], ["row"]),
        node("QuantizeLinear", ["row", *pixels], ["row_8"]),
        node("DequantizeLinear", ["row_8", *pixels], ["row_real"]),
        node("DequantizeLinear", ["weights", "weight_scale", "weight_zero"], ["kernel"], axis=1),
        node("MatMul", ["row_real", "kernel"], ["sums"]),
        node("QuantizeLinear", ["sums", *logits], ["sums_8"]),
        node("DequantizeLinear", ["sums_8", *logits], ["logits"]),
        node("Softmax", ["logits"], ["probabilities"]),
    ]
    model = make_model(nodes, {name: np.asarray(value) for name, value in constants.items()})
    assert model.graph.input[0].type.tensor_type.elem_type == TensorProto.UINT8
    embed_spec(model, dump_spec(replace(SPEC, backend="onnx")))
    return model


@pytest.mark.parametrize(("weight", "bits"), [(127, 8), (64, 7)])
def test_products_do_not_overflow(weight: int, bits: int, tmp_path: Path) -> None:
    """Two products of 255 and 127 exceed 16 bits: fast kernels of older CPUs would clip them."""
    model = saturating_model(weight)
    if bits == 7:
        model.metadata_props.add(key=WEIGHT_BITS, value="7")
    path = tmp_path / "engine.onnx"
    onnx.save(model, path)
    logits = np.array([1.0, (weight // 2) / weight, 0.0])
    expected = np.exp(logits) / np.exp(logits).sum()
    with open_engine(path) as engine:
        assert isinstance(engine, ONNXEngine)
        assert engine.predict(WHITE)[0] == pytest.approx(expected, abs=0.002)


@pytest.mark.parametrize("overflow", [True, False])
@pytest.mark.parametrize("bits", [8, 7])
def test_slow_kernels_are_used_only_where_the_fast_ones_overflow(
    overflow: bool, bits: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lesiontk.backends.onnx.int8_kernels.kernels_overflow", lambda _: overflow)
    model = saturating_model(127)
    if bits == 7:
        model.metadata_props.add(key=WEIGHT_BITS, value="7")
    path = tmp_path / "engine.onnx"
    onnx.save(model, path)
    with ONNXEngine(path, 1) as engine:
        entry = engine._session.get_session_options().get_session_config_entry(EXACT)
    assert entry == ("1" if overflow and bits == 8 else "0")


def test_the_probe_is_exact_in_exact_kernels() -> None:
    """With the slow kernels its result is the expected one on every CPU."""
    import onnxruntime

    from lesiontk.backends.onnx import int8_kernels

    options = onnxruntime.SessionOptions()
    options.add_session_config_entry(EXACT, "1")
    model = zlib.decompress(base64.b64decode(int8_kernels.PROBE))
    onnx.checker.check_model(onnx.load_from_string(model), full_check=True)
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    outputs = session.run(None, {"x": np.full((1, 16, 4, 4), 255, np.uint8)})[0]
    assert (outputs == int8_kernels.EXPECTED).all()
    assert exact_entries(onnxruntime) == {EXACT: "1" if kernels_overflow(onnxruntime) else "0"}


@pytest.mark.slow
@pytest.mark.parametrize(("cpu", "overflow"), [("Haswell", True), ("Nehalem", False)])
def test_the_probe_finds_the_overflow_of_an_emulated_cpu(cpu: str, overflow: bool) -> None:
    """Haswell has AVX2 and no VNNI; the kernels for Nehalem, without AVX, are exact."""
    emulator = shutil.which("qemu-x86_64-static")
    if emulator is None or platform.machine() != "x86_64":
        pytest.skip("qemu-x86_64-static emulates another x86 CPU on an x86 machine")
    code = (
        "import onnxruntime; from lesiontk.backends.onnx import int8_kernels; "
        "print(int8_kernels.kernels_overflow(onnxruntime))"
    )
    done = subprocess.run(
        [emulator, "-cpu", cpu, sys.executable, "-c", code],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.strip() == str(overflow)


def test_a_setting_of_the_caller_s_goes_before(tmp_path: Path) -> None:
    path = tmp_path / "engine.onnx"
    onnx.save(saturating_model(127), path)
    engine = ONNXEngine(path, 1, entries={EXACT: "0"})
    assert engine._session.get_session_options().get_session_config_entry(EXACT) == "0"
