"""Building and running on the device: the control flow on a stand-in, the first steps here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from lesiontk.backends.tensorrt import on_device
from lesiontk.backends.tensorrt.installation import explain_no_gpu
from tests.backends.tensorrt.device import Device, answer
from tests.backends.tensorrt.fake_tensorrt import FakeCuda, FakeMemory, FakeTensorRT
from tests.backends.tensorrt.graphs import pictures, run_model

SCRIPT = Path(on_device.__file__)


BUNDLE: dict[str, Any] = {
    "engine": {"file": "model.onnx"},
    "tensorrt": {
        "precision": "int8",
        "versions": ["8.5.2", "10.3.0"],
        "batches": [1, 1, 4],
        "workspace_bytes": 1 << 30,
    },
}


@pytest.fixture
def folder(tmp_path: Path, int8: onnx.ModelProto) -> Path:
    """A bundle's folder, as far as this module reads it."""
    onnx.save(int8, tmp_path / "model.onnx")
    return tmp_path


def open_engine(folder: Path) -> on_device.Runner:
    return on_device.open_engine(folder, BUNDLE, threads=1)


# -------------------------------------------------------------------------- runs

FLAGS = {
    "8.5.2.2": ["network EXPLICIT_BATCH", "flag INT8"],
    "8.6.2.3": ["network EXPLICIT_BATCH", "flag INT8"],
    "10.3.0": ["network EXPLICIT_BATCH+STRONGLY_TYPED"],
    "11.0.0": ["network STRONGLY_TYPED"],
}


@pytest.mark.parametrize(("version", "expected"), FLAGS.items())
def test_each_version_gets_what_it_has(
    version: str, expected: list[str], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = Device(monkeypatch, version)
    open_engine(folder).close()
    typed = [entry for entry in device.log if entry.startswith(("network", "flag"))]
    assert typed == expected


def test_it_builds_answers_and_times(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    device = Device(monkeypatch, "10.3.0")
    runner = open_engine(folder)
    images = pictures(10)
    np.testing.assert_array_equal(runner.predict(images), answer(images))
    assert runner.time_images(images, rounds=3, warmup=1) == [0.5, 0.5, 0.5]
    runner.close()
    assert device.log == [
        "builder",
        "network EXPLICIT_BATCH+STRONGLY_TYPED",
        "parse",
        f"workspace {1 << 30}",
        "profile image [1, 1, 4]",
        "timing cache of 0 bytes",
        "build",
        "runtime",
        *(
            entry
            for count in (4, 4, 2)  # ten golden images, four at once
            for entry in (f"upload {count}", f"execute {count} on 77", f"download {count}", "wait")
        ),
        *["mark", "upload 1", "execute 1 on 77", "download 1", "mark", "wait"] * 4,
    ]
    assert runner.description == {
        "runtime": "tensorrt",
        "version": "10.3.0",
        "engine": "built",
        "plan_bytes": (folder / "engine.plan").stat().st_size,
        "warning": "",
    }
    assert device.cuda.closed


def test_the_second_run_loads_what_the_first_built(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = Device(monkeypatch, "10.3.0")
    assert open_engine(folder).description["engine"] == "built"
    assert open_engine(folder).description["engine"] == "loaded"
    assert device.log.count("build") == 1
    (folder / "engine.plan").unlink()
    assert open_engine(folder).description["engine"] == "built"
    assert "timing cache of 6 bytes" in device.log  # of the first build


def test_another_tensorrt_or_another_graph_builds_anew(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Device(monkeypatch, "8.6.2")
    open_engine(folder)
    Device(monkeypatch, "10.3.0")
    assert open_engine(folder).description["engine"] == "built"
    with (folder / "model.onnx").open("ab") as stream:
        stream.write(b"\n")
    assert open_engine(folder).description["engine"] == "built"


@pytest.mark.parametrize(
    ("name", "content"),
    [("engine.plan", b"another plan"), ("engine.json", b"{"), ("engine.json", b"\xff")],
)
def test_a_plan_that_is_not_as_it_was_written_is_built_anew(
    name: str, content: bytes, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Device(monkeypatch, "10.3.0")
    open_engine(folder)
    plan = (folder / "engine.plan").read_bytes()
    (folder / name).write_bytes(content)
    assert open_engine(folder).description["engine"] == "built"
    assert (folder / "engine.plan").read_bytes() == plan
    assert open_engine(folder).description["engine"] == "loaded"


def test_a_version_that_the_graph_was_not_checked_for_is_told(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Device(monkeypatch, "10.7.0")
    warning = open_engine(folder).description["warning"]
    assert warning == "this is TensorRT 10.7.0; the graph was checked for 8.5.2, 10.3.0"


@pytest.mark.parametrize(
    ("version", "where"), [("8.5.2", "node 3 (unknown operator)"), ("10.3.0", "second (Conv)")]
)
def test_a_refused_graph_is_told_with_the_reason(
    version: str, where: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Device(monkeypatch, version, refuse="zero point is not zero")
    with pytest.raises(on_device.BuildError) as caught:
        open_engine(folder)
    assert f"{where}: zero point is not zero" in str(caught.value)
    assert caught.value.exit_code == 2


def test_complaints_about_a_missing_driver_are_left_out() -> None:
    noise = "[checkMacros.cpp::catchCudaError::250] Error Code 1: Cuda Runtime (cudaError 35)"
    trt = FakeTensorRT("10.3.0", FakeMemory(), answer)
    logger = on_device.make_logger(trt)
    for message in (noise, f"first\n{noise}", "second"):
        logger.log(trt.ILogger.Severity.ERROR, message)
    logger.log(trt.ILogger.Severity.WARNING, "third")
    assert logger.errors == ["first", "second"]


def test_a_timing_cache_of_another_gpu_is_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "timing.cache").write_bytes(b"of another GPU")
    Device(monkeypatch, "10.3.0")
    expected = r"timing.cache belongs to another GPU or TensorRT version; remove it"
    with pytest.raises(on_device.BuildError, match=expected):
        open_engine(folder)


def test_an_engine_of_another_version_does_not_load() -> None:
    memory = FakeMemory()
    trt = FakeTensorRT("10.3.0", memory, answer)
    with pytest.raises(on_device.BuildError, match="the engine cannot be loaded"):
        on_device.Runner(trt, FakeCuda(memory), b"plan of 8.5.2")


def test_images_of_another_size_are_refused() -> None:
    memory = FakeMemory()
    trt = FakeTensorRT("10.3.0", memory, answer)
    runner = on_device.Runner(trt, FakeCuda(memory), b"plan of 10.3.0")
    with pytest.raises(ValueError, match="could not broadcast"):
        runner.predict(np.zeros((1, 9, 9, 3), np.uint8))


def test_only_tensorrt_for_rtx_builds_for_another_gpu() -> None:
    trt = FakeTensorRT("10.3.0", FakeMemory(), answer)
    with pytest.raises(on_device.BuildError, match="builds for the local GPU only"):
        on_device.build_from_onnx(trt, b"", "int8", capabilities=("SM87",))


# ------------------------------------------------------------- without stand-ins


@pytest.mark.skipif(not explain_no_gpu(), reason="there is a GPU that TensorRT can use")
def test_without_a_gpu_it_builds_with_tensorrt_for_rtx_and_says_what_lacks(folder: Path) -> None:
    pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed")
    with pytest.raises(
        on_device.MissingRequirementError, match=r"no GPU can be used \(pycuda: "
    ) as caught:
        open_engine(folder)
    assert caught.value.exit_code == 3
    assert (folder / "engine.plan").stat().st_size > 1000
    made_of = json.loads((folder / "engine.json").read_text())
    assert made_of["tensorrt"].startswith("tensorrt_rtx ")


@pytest.mark.gpu
@pytest.mark.skipif(bool(explain_no_gpu()), reason=f"no GPU: {explain_no_gpu()}")
def test_on_a_gpu_it_answers_as_onnx_runtime(folder: Path, int8: onnx.ModelProto) -> None:
    images = pictures(10)
    runner = open_engine(folder)
    try:
        received = runner.predict(images)
    finally:
        runner.close()
    expected = run_model(int8, images)
    assert (received.argmax(axis=1) == expected.argmax(axis=1)).mean() >= 0.9
    assert np.abs(received - expected).mean() < 0.05
