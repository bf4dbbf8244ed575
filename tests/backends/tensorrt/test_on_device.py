"""Building and running on the device: the control flow on a stand-in, the first steps here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from lesiontk.backends.onnx.signals import add_signal_outputs
from lesiontk.backends.tensorrt import on_device, plan_cache
from lesiontk.backends.tensorrt.installation import explain_no_gpu
from lesiontk.backends.tensorrt.plan_runner import Runner
from tests.backends.tensorrt.device import Device, answer
from tests.backends.tensorrt.fake_tensorrt import FakeCuda, FakeMemory, FakeTensorRT, make_plan
from tests.backends.tensorrt.graphs import pictures, run_model, run_outputs

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


def stored(folder: Path, suffix: str) -> list[Path]:
    """Return the files of the stored plans."""
    return sorted((folder / plan_cache.PLANS).glob(f"*{suffix}"))


def open_engine(folder: Path) -> Runner:
    return plan_cache.open_engine(folder / "model.onnx", BUNDLE, threads=1)


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
        "builder",  # which is asked for the device's DLA
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
        "precision": "int8",
        "device": device.device,
        "engine": "built",
        "plan_bytes": stored(folder, ".plan")[0].stat().st_size,
        "warning": "",
        "dla": None,
    }
    assert device.cuda.closed


def test_the_second_run_loads_what_the_first_built(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = Device(monkeypatch, "10.3.0")
    assert open_engine(folder).description["engine"] == "built"
    assert open_engine(folder).description["engine"] == "loaded"
    assert device.log.count("build") == 1
    stored(folder, ".plan")[0].unlink()
    assert open_engine(folder).description["engine"] == "built"
    assert "timing cache of 6 bytes" in device.log  # of the first build


def test_another_tensorrt_gpu_or_graph_builds_anew(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def how() -> str:
        return str(open_engine(folder).description["engine"])

    Device(monkeypatch, "8.6.2")
    open_engine(folder)
    device = Device(monkeypatch, "10.3.0")
    assert (how(), how()) == ("built", "loaded")
    device.device = "Orin, compute capability 8.7, 8 multiprocessors"
    assert (how(), how()) == ("built", "loaded")
    model = onnx.load(folder / "model.onnx")
    model.doc_string = "another"
    onnx.save(model, folder / "model.onnx")
    assert (how(), how()) == ("built", "loaded")
    Device(monkeypatch, "8.6.2")  # as it was, but for the graph
    assert how() == "built"
    assert len(stored(folder, ".plan")) == 5


@pytest.mark.parametrize(
    ("suffix", "content"),
    [
        (".plan", b"another plan"),
        (".plan", None),
        (".json", b"{"),
        (".json", b"[]"),
        (".json", b"\xff"),
        (".json", None),
    ],
)
def test_a_plan_that_is_not_as_it_was_written_is_built_anew(
    suffix: str, content: bytes | None, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Device(monkeypatch, "10.3.0")
    open_engine(folder)
    (plan_file,) = stored(folder, ".plan")
    plan = plan_file.read_bytes()
    (damaged,) = stored(folder, suffix)
    if content is None:
        damaged.unlink()
    else:
        damaged.write_bytes(content)
    assert open_engine(folder).description["engine"] == "built"
    assert plan_file.read_bytes() == plan
    assert open_engine(folder).description["engine"] == "loaded"


def test_a_build_that_is_interrupted_leaves_nothing_that_is_read(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Device(monkeypatch, "10.3.0")
    rename = Path.replace

    def stop_at_the_record(path: Path, to: Path) -> None:
        if to.suffix == ".json":
            raise KeyboardInterrupt
        rename(path, to)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", stop_at_the_record)
        with pytest.raises(KeyboardInterrupt):
            open_engine(folder)
    assert [len(stored(folder, suffix)) for suffix in (".plan", ".json")] == [1, 0]
    assert open_engine(folder).description["engine"] == "built"


def test_a_folder_that_cannot_be_written_is_named_with_the_remedy(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Device(monkeypatch, "10.3.0")
    (folder / plan_cache.PLANS).write_text("in the way")
    with pytest.raises(on_device.BuildError, match=r"File exists.*Run `run.py self-test` once"):
        open_engine(folder)


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        ("10.3.0", ["network EXPLICIT_BATCH", "flag INT8", "flag FP16"]),
        ("11.4.1", ["network STRONGLY_TYPED"]),
    ],
)
def test_layers_for_the_dla_are_told_from_those_for_the_gpu(
    version: str, expected: list[str], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nodes = onnx.load(folder / "model.onnx").graph.node
    others = {"Softmax", "QuantizeLinear", "DequantizeLinear", "Cast"}
    device = Device(monkeypatch, version, dla_cores=2, not_on_dla=others)
    found = open_engine(folder).description["dla"]
    assert found["cores"] == 2
    assert found["layers"] == [node.name for node in nodes if node.op_type not in others]
    assert found["gpu_layers"] == [node.name for node in nodes if node.op_type in others]
    asked = device.log[device.log.index("build") + 1 :]
    assert [entry for entry in asked if entry.startswith(("network", "flag"))] == expected
    assert open_engine(folder).description["dla"] == found  # also of a loaded plan


def test_features_and_logits_come_with_the_probabilities(
    folder: Path, int8: onnx.ModelProto, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_signal_outputs(int8)
    onnx.save(int8, folder / "model.onnx")
    Device(monkeypatch, "10.3.0", answer=lambda images: tuple(run_outputs(int8, images)))
    runner = open_engine(folder)
    images = pictures(6)
    expected = run_outputs(int8, images)
    np.testing.assert_array_equal(runner.predict(images), expected[0])
    for received, values in zip(runner.predict_outputs(images), expected, strict=True):
        np.testing.assert_array_equal(received, values.reshape(len(images), -1))
    for received, values in zip(runner.read_signals(), expected, strict=True):
        np.testing.assert_array_equal(received, values[-1].ravel())


def test_an_engine_with_other_outputs_is_refused(
    folder: Path, int8: onnx.ModelProto, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_signal_outputs(int8)
    del int8.graph.output[1]  # the features
    onnx.save(int8, folder / "model.onnx")
    device = Device(monkeypatch, "10.3.0")
    with pytest.raises(on_device.BuildError, match="all or none of features, logits"):
        open_engine(folder)
    assert device.cuda.closed


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
    Device(monkeypatch, "10.3.0")
    open_engine(folder)
    (timings,) = stored(folder, ".cache")
    timings.write_bytes(b"of another GPU")
    stored(folder, ".plan")[0].unlink()
    expected = rf"{timings.name} belongs to another GPU or TensorRT version; remove it"
    with pytest.raises(on_device.BuildError, match=expected):
        open_engine(folder)


def test_an_engine_of_another_version_does_not_load() -> None:
    memory = FakeMemory()
    trt = FakeTensorRT("10.3.0", memory, answer)
    with pytest.raises(on_device.BuildError, match="the engine cannot be loaded"):
        Runner(trt, FakeCuda(memory), make_plan("8.5.2", b""))


def test_images_of_another_size_are_refused(int8: onnx.ModelProto) -> None:
    memory = FakeMemory()
    trt = FakeTensorRT("10.3.0", memory, answer)
    runner = Runner(trt, FakeCuda(memory), make_plan("10.3.0", int8.SerializeToString()))
    with pytest.raises(ValueError, match="could not broadcast"):
        runner.predict(np.zeros((1, 9, 9, 3), np.uint8))


def test_only_tensorrt_for_rtx_builds_for_another_gpu(int8: onnx.ModelProto) -> None:
    trt = FakeTensorRT("10.3.0", FakeMemory(), answer)
    content = int8.SerializeToString()
    with pytest.raises(on_device.BuildError, match="builds for the local GPU only"):
        on_device.build_from_onnx(trt, content, "int8", capabilities=("SM87",))


# ------------------------------------------------------------- without stand-ins


@pytest.mark.skipif(not explain_no_gpu(), reason="there is a GPU that TensorRT can use")
def test_without_a_gpu_it_says_what_lacks_before_it_builds(folder: Path) -> None:
    pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed")
    with pytest.raises(
        on_device.MissingRequirementError, match=r"no GPU can be used \(pycuda: "
    ) as caught:
        open_engine(folder)
    assert caught.value.exit_code == 3
    assert not (folder / plan_cache.PLANS).exists()


@pytest.mark.parametrize("signals", [False, True])
def test_tensorrt_for_rtx_itself_builds_and_the_plan_is_stored(
    signals: bool, folder: Path, int8: onnx.ModelProto
) -> None:
    trt = pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed")
    if signals:
        add_signal_outputs(int8)
        onnx.save(int8, folder / "model.onnx")
    settings, file = plan_cache.PlanSettings(**BUNDLE["tensorrt"]), folder / "model.onnx"
    plan, record, how = plan_cache.load_or_build(trt, "no GPU", file, settings)
    assert how == "built"
    assert len(plan) > 1000
    assert record.built_for.tensorrt == f"tensorrt_rtx {trt.__version__}"
    assert record.dla is None
    assert plan_cache.load_or_build(trt, "no GPU", file, settings) == (plan, record, "loaded")


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
