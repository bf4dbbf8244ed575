"""The folder that goes to a Jetson: whole, checked, and running as far as it can here."""

from __future__ import annotations

import json
import sys
from argparse import Namespace
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import onnx
import pytest

from lesiontk.backends import open_engine
from lesiontk.backends.backend import dump_spec
from lesiontk.backends.onnx.graph import embed_spec
from lesiontk.backends.tensorrt import on_device
from lesiontk.backends.tensorrt.installation import explain_no_gpu
from lesiontk.backends.tensorrt.targets import read_targets
from lesiontk.deploy import BUNDLE_TARGETS
from lesiontk.deploy.jetson import Jetson
from lesiontk.errors import DataError, UsageError
from lesiontk.recipe import VerifyRule
from lesiontk.records import EngineSpec
from tests.backends.tensorrt.conftest import *  # noqa: F403 - the graphs of the back end
from tests.backends.tensorrt.damaged_graphs import make_asymmetric
from tests.backends.tensorrt.device import Device
from tests.backends.tensorrt.graphs import SPEC
from tests.deploy.bundles import call_runner, make_bundle, read_contract
from tests.loose_modules import load_module

JETPACK6 = "jetson-orin-jetpack6"


def build(
    folder: Path, model: onnx.ModelProto, target: str = JETPACK6, spec: EngineSpec = SPEC
) -> Path:
    """Return the bundle of a graph."""
    embed_spec(model, dump_spec(spec))
    path = folder / f"{spec.backend}_{spec.precision}.onnx"
    onnx.save(model, path)
    return make_bundle(folder / f"{target}-{spec.precision}", path, target)


def load_runner(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Import the bundle's run.py here, where TensorRT has a stand-in."""
    for name in ("decision", "crop", "picture", "picture_decoder", "tensorrt_runtime"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setitem(sys.modules, "tensorrt_runtime", on_device)
    run = load_module(bundle / "run.py")
    monkeypatch.setattr(sys, "meta_path", [run.ListedModules(bundle), *sys.meta_path])
    return run


OPTIONS = Namespace(runtime=None, threads=1, rounds=2)


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
    assert (folder / "tensorrt_runtime.py").read_text() == Path(on_device.__file__).read_text()


def test_a_device_that_answers_alike_passes(
    int8: onnx.ModelProto, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = build(tmp_path, int8)
    run = load_runner(folder, monkeypatch)
    with open_engine(folder / "tensorrt_int8.onnx") as engine:
        device = Device(monkeypatch, "10.3.0", answer=engine.predict)
        found = run.test_bundle(folder, read_contract(folder), run.check_files(folder), OPTIONS)
    assert found["as_expected"], found
    assert found["engine"]["engine"] == "built"
    assert found["engine"]["warning"] == ""
    assert found["latency_ms"]["samples"] == [0.5, 0.5]  # CUDA's events, not the processor's clock
    assert device.cuda.closed
    assert "as expected" in run.show_findings(found)


def test_a_device_that_answers_otherwise_fails(
    int8: onnx.ModelProto, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = build(tmp_path, int8)
    run = load_runner(folder, monkeypatch)
    for value in (1 / 3, np.nan):
        wrong = np.full(3, value, np.float32)
        Device(monkeypatch, "10.3.0", answer=lambda images, w=wrong: np.stack([w] * len(images)))
        found = run.test_bundle(folder, read_contract(folder), run.check_files(folder), OPTIONS)
        assert not found["as_expected"]
        json.dumps(found, allow_nan=False)
        assert "NOT AS EXPECTED" in run.show_findings(found)


def test_how_alike_depends_on_the_precision(
    int8: onnx.ModelProto, float32: onnx.ModelProto, tmp_path: Path
) -> None:
    rule = VerifyRule()
    reduced = read_contract(build(tmp_path, int8))["golden"]
    full = read_contract(build(tmp_path, float32, spec=replace(SPEC, precision="float32")))
    assert reduced["max_mean_drift"] == rule.max_mean_drift_int8
    assert full["golden"]["max_mean_drift"] == rule.max_mean_drift_float


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
    int8: onnx.ModelProto, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It needs NumPy, TensorRT and a CUDA binding; only what reads pictures needs Pillow, too."""
    folder = build(tmp_path, int8)
    with open_engine(folder / "tensorrt_int8.onnx") as engine:
        device = Device(monkeypatch, "10.3.0", answer=engine.predict)
        monkeypatch.setitem(sys.modules, "PIL", None)
        run = load_runner(folder, monkeypatch)
        found = run.test_bundle(folder, read_contract(folder), run.check_files(folder), OPTIONS)
    assert found["as_expected"], found
    assert found["engine"]["engine"] == "built"
    assert "`predict` cannot run: Pillow" in run.show_findings(found)
    device.log.clear()
    options = Namespace(**vars(OPTIONS), pictures=[folder / "golden/wide.png"])
    with pytest.raises(run.MissingRequirementError, match=r"Pillow 9\.1 or later, to read images"):
        run.predict_pictures(folder, read_contract(folder), options)
    assert device.log == []  # known before the engine is opened


def test_the_pillow_of_an_old_jetpack_is_refused(
    int8: onnx.ModelProto, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = load_runner(build(tmp_path, int8), monkeypatch)
    monkeypatch.delattr("PIL.Image.Resampling")
    with pytest.raises(
        run.MissingRequirementError, match=r"Pillow 9\.1 or later, .* name 'Resampling'"
    ):
        run.import_picture()


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
