"""The folder that goes to a Jetson: whole, checked, and running as far as it can here."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from PIL import Image

from lesiontk.backends import open_engine
from lesiontk.backends.backend import dump_spec
from lesiontk.backends.onnx.graph import embed_spec
from lesiontk.backends.onnx.signals import add_signal_outputs
from lesiontk.backends.tensorrt import plan_cache
from lesiontk.backends.tensorrt.installation import explain_no_gpu
from lesiontk.backends.tensorrt.targets import read_targets
from lesiontk.deploy import BUNDLE_TARGETS
from lesiontk.deploy.bundle import make_golden_images
from lesiontk.deploy.jetson import Jetson
from lesiontk.errors import DataError, UsageError
from lesiontk.evaluate.input_checks import (
    ACCEPTED,
    ENERGY,
    OUT_OF_DOMAIN,
    STATUSES,
    DomainScore,
    score_domain,
)
from lesiontk.records import EngineSpec
from lesiontk.stages.input_checks import write_checks
from tests.backends.tensorrt.conftest import *  # noqa: F403 - the graphs of the back end
from tests.backends.tensorrt.damaged_graphs import make_asymmetric
from tests.backends.tensorrt.device import Device
from tests.backends.tensorrt.graphs import SPEC, run_outputs
from tests.deploy.bundles import call_runner, make_bundle, read_contract
from tests.deploy.jetson import JETPACK6, load_runner, self_test


def build(
    folder: Path, model: onnx.ModelProto, target: str = JETPACK6, spec: EngineSpec = SPEC
) -> Path:
    """Return the bundle of a graph."""
    embed_spec(model, dump_spec(spec))
    path = folder / f"{spec.backend}_{spec.precision}.onnx"
    onnx.save(model, path)
    return make_bundle(folder / f"{target}-{spec.precision}", path, target)


def test_every_jetson_of_the_table_is_a_bundle_target() -> None:
    registered = [n for n in BUNDLE_TARGETS if BUNDLE_TARGETS.get(n) is Jetson]
    assert registered == list(read_targets())


@pytest.mark.parametrize("target", read_targets())
def test_it_has_graph_runner_and_instructions(
    target: str, int8: onnx.ModelProto, tmp_path: Path
) -> None:
    folder = build(tmp_path, int8, target)
    names = {path.name for path in folder.iterdir()}
    assert {"tensorrt_int8.onnx", "tensorrt_runtime.py", "onnx_runtime.py", "run.py"} <= names
    device = read_targets()[target]
    contract = read_contract(folder)
    assert list(contract["runtimes"]) == ["tensorrt", "onnx"]
    assert contract["tensorrt"]["versions"] == list(device.tensorrt)
    readme = (folder / "README.md").read_text()
    assert readme.count("trtexec --onnx=tensorrt_int8.onnx") == len(device.tensorrt)
    assert f"not run on a {device.device}" in readme
    assert f"Python {device.python} or later" in readme
    assert (folder / "tensorrt_int8.onnx").read_bytes() == (
        tmp_path / "tensorrt_int8.onnx"
    ).read_bytes()
    own = re.sub(r"from lesiontk\.[a-z._]+\.", "from ", Path(plan_cache.__file__).read_text())
    assert (folder / "tensorrt_runtime.py").read_text() == own
    assert {"cuda_bindings.py", "dla_layers.py", "on_device.py", "plan_runner.py"} <= names


def test_a_device_that_answers_alike_passes(
    int8: onnx.ModelProto,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = build(tmp_path, int8)
    run = load_runner(folder, monkeypatch)
    with open_engine(folder / "tensorrt_int8.onnx") as engine:
        device = Device(monkeypatch, "10.3.0", answer=engine.predict)
        found = self_test(run, capsys)
    assert found["as_expected"], found
    assert found["engine"]["engine"] == "built"
    assert found["engine"]["warning"] == ""
    assert found["latency_ms"]["samples"] == [0.5, 0.5]  # CUDA's events, not the processor's clock
    assert device.cuda.closed


def test_a_device_that_answers_otherwise_fails(
    int8: onnx.ModelProto,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = build(tmp_path, int8)
    run = load_runner(folder, monkeypatch)
    for value in (1 / 3, np.nan):
        wrong = np.full(3, value, np.float32)
        Device(monkeypatch, "10.3.0", answer=lambda images, w=wrong: np.stack([w] * len(images)))
        found = self_test(run, capsys)
        assert not found["as_expected"]
        json.dumps(found, allow_nan=False)


@pytest.mark.parametrize("precision", ["int8", "float32"])
def test_a_jetson_must_answer_as_closely_as_a_phone(
    precision: str, int8: onnx.ModelProto, float32: onnx.ModelProto, tmp_path: Path
) -> None:
    model = int8 if precision == "int8" else float32
    jetson = read_contract(build(tmp_path, model, spec=replace(SPEC, precision=precision)))
    phone = read_contract(make_bundle(tmp_path / "phone", "tflite_int8.tflite", "android"))
    for limit, value in (("min_agreement", 0.98), ("max_mean_drift", 0.004)):
        assert jetson["golden"][limit] == phone["golden"][limit] == value


@pytest.fixture
def checked(int8: onnx.ModelProto, tmp_path: Path) -> Path:
    """A bundle whose input checks refuse half of the golden images, by their logits."""
    embed_spec(int8, dump_spec(SPEC))
    path = tmp_path / "tensorrt_int8.onnx"
    onnx.save(int8, path)
    add_signal_outputs(int8)
    probabilities, features, logits = run_outputs(int8, make_golden_images(SPEC.preprocessing))
    domain = DomainScore(ENERGY)
    threshold = float(np.median(score_domain(domain, probabilities, features, logits)))
    (tmp_path / "input_checks").mkdir()
    write_checks(tmp_path / "input_checks", path.read_bytes(), {}, domain, threshold)
    return make_bundle(tmp_path / "bundle", path, JETPACK6)


def test_a_jetson_refuses_what_the_toolkit_refuses(
    checked: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = load_runner(checked, monkeypatch)
    model = onnx.load(checked / "tensorrt_int8.onnx")
    assert [entry.name for entry in model.graph.output] == ["probabilities", "features", "logits"]

    Device(monkeypatch, "10.3.0", answer=lambda images: tuple(run_outputs(model, images)))
    found = self_test(run, capsys)
    assert found["as_expected"], found
    assert (found["input_checks"]["n"], found["input_checks"]["agreement"]) == (65, 1.0)
    with np.load(checked / "golden.npz") as golden:
        refused = golden["statuses"] == STATUSES.index(OUT_OF_DOMAIN)
        images = golden["images"]
    assert 0.4 < refused.mean() < 0.6
    for row in (int(refused.argmax()), int((~refused).argmax())):
        Image.fromarray(images[row]).save(checked.parent / "picture.png")
        assert run.main(["predict", "--json", str(checked.parent / "picture.png")]) == 0
        (prediction,) = json.loads(capsys.readouterr().out)["predictions"]
        status = OUT_OF_DOMAIN if refused[row] else ACCEPTED
        assert prediction["input"]["status"] == status


def test_a_jetson_that_refuses_others_fails(
    checked: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = load_runner(checked, monkeypatch)
    model = onnx.load(checked / "tensorrt_int8.onnx")

    def answer(images: NDArray[np.uint8]) -> tuple[NDArray[np.float32], ...]:
        probabilities, features, logits = run_outputs(model, images)
        return probabilities, features, logits + 100  # the same probabilities, another energy

    Device(monkeypatch, "10.3.0", answer=answer)
    found = self_test(run, capsys)
    assert found["answers"]["as_expected"]
    assert not found["input_checks"]["as_expected"]
    assert not found["as_expected"]


def test_onnx_runtime_tries_the_folder_where_there_is_no_tensorrt(
    int8: onnx.ModelProto, tmp_path: Path
) -> None:
    folder = build(tmp_path, int8)
    done = call_runner(folder, "self-test", "--runtime", "onnx", "--rounds", "0", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["engine"]["runtime"] == "onnxruntime"
    assert found["answers"]["agreement"] == 1.0
    done = call_runner(folder, "predict", "--runtime", "onnx", str(folder / "golden/wide.png"))
    assert done.returncode == 0, done.stderr


def test_a_device_without_pillow_builds_and_answers(
    int8: onnx.ModelProto,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """It needs NumPy, TensorRT and a CUDA binding; only what reads pictures needs Pillow, too."""
    folder = build(tmp_path, int8)
    with open_engine(folder / "tensorrt_int8.onnx") as engine:
        device = Device(monkeypatch, "10.3.0", answer=engine.predict)
        monkeypatch.setitem(sys.modules, "PIL", None)
        run = load_runner(folder, monkeypatch)
        found = self_test(run, capsys)
    assert found["as_expected"], found
    assert found["engine"]["engine"] == "built"
    assert "Pillow 9.1 or later" in found["pictures"]["lacks"]
    device.log.clear()
    assert run.main(["predict", str(folder / "golden/wide.png")]) == 3
    assert "Pillow 9.1 or later, to read images" in capsys.readouterr().err
    assert device.log == []  # known before the engine is opened


def test_the_pillow_of_an_old_jetpack_is_refused(
    int8: onnx.ModelProto,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = load_runner(build(tmp_path, int8), monkeypatch)
    monkeypatch.delattr("PIL.Image.Resampling")
    assert run.main(["predict", "golden/wide.png", "--runtime", "onnx"]) == 3
    said = capsys.readouterr().err
    assert "Pillow 9.1 or later, to read images" in said
    assert "name 'Resampling'" in said


@pytest.mark.skipif(not explain_no_gpu(), reason="there is a GPU that TensorRT can use")
def test_without_a_gpu_it_exits_with_3(int8: onnx.ModelProto, tmp_path: Path) -> None:
    done = call_runner(build(tmp_path, int8), "self-test")
    assert done.returncode == 3, done.stderr
    assert "missing requirement" in done.stderr


def test_a_graph_that_tensorrt_refuses_makes_no_bundle(
    int8: onnx.ModelProto, tmp_path: Path
) -> None:
    make_asymmetric(int8)
    with pytest.raises(DataError, match="asymmetric: its zero point is -128"):
        build(tmp_path, int8)


def test_an_engine_of_another_back_end_makes_no_bundle(
    int8: onnx.ModelProto, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=r"received onnx:int8. Make one with .*tensorrt:int8"):
        build(tmp_path, int8, spec=replace(SPEC, backend="onnx"))
