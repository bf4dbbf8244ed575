"""The script for the device: its syntax, its control flow on a stand-in, its first steps here."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from lesiontk.backends.tensorrt import on_device
from lesiontk.backends.tensorrt.installation import explain_no_gpu

from .fake_tensorrt import FakeCuda, FakeMemory, FakeTensorRT
from .graphs import pictures, run_model

SCRIPT = Path(on_device.__file__)


def answer(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Three probabilities that differ from image to image."""
    logits = images[:, 0, 0].astype(np.float32) / 64
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True), np.float32)


@pytest.fixture
def kit(tmp_path: Path, int8: onnx.ModelProto) -> Path:
    """A folder as `KitStage` writes it, with answers of `answer`."""
    onnx.save(int8, tmp_path / "model.onnx")
    images = pictures(10)
    np.savez(tmp_path / "golden.npz", images=images, probabilities=answer(images))
    document = {
        "model": "model.onnx",
        "precision": "int8",
        "golden": "golden.npz",
        "tensorrt_versions": ["8.5.2", "10.3.0"],
        "batches": [1, 1, 4],
        "workspace_bytes": 1 << 30,
        "min_agreement": 0.9,
        "max_mean_drift": 0.05,
    }
    (tmp_path / "kit.json").write_text(json.dumps(document))
    return tmp_path


class Device:
    """A machine with the stand-ins."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, version: str, **settings: Any) -> None:
        self.memory = FakeMemory()
        self.log = self.memory.log
        self.trt = FakeTensorRT(version, self.memory, settings.pop("answer", answer), **settings)
        self.cuda = FakeCuda(self.memory)
        monkeypatch.setattr(on_device, "import_tensorrt", lambda: self.trt)
        monkeypatch.setattr(on_device, "open_cuda", lambda: self.cuda)


# ------------------------------------------------------------------------ script


def test_it_is_written_in_python_3_8() -> None:
    tree = ast.parse(SCRIPT.read_text(), feature_version=(3, 8))
    names = {
        node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")
        for node in ast.walk(tree)
    }
    assert not names & {"removeprefix", "removesuffix", "pairwise", "batched"}
    keywords = {node.arg for node in ast.walk(tree) if isinstance(node, ast.keyword)}
    assert "strict" not in keywords  # of zip, from 3.10
    with pytest.raises(SyntaxError):
        ast.parse("match a:\n    case 1: pass", feature_version=(3, 8))


def test_its_types_are_not_evaluated_where_3_8_knows_them_not() -> None:
    """``dict[str, Any] | None`` in a signature is text, thanks to the import from __future__."""
    tree = ast.parse(SCRIPT.read_text())
    first = next(node for node in tree.body if isinstance(node, ast.ImportFrom))
    assert (first.module, [name.name for name in first.names]) == ("__future__", ["annotations"])
    unions = [node for node in ast.walk(tree) if isinstance(node, ast.BinOp)
              and isinstance(node.op, ast.BitOr) and ast.unparse(node) not in TYPES]  # fmt: skip
    assert unions == []


TYPES = {"Path | None"}


def test_it_needs_numpy_tensorrt_and_a_cuda_binding_alone() -> None:
    found = set()
    for node in ast.walk(ast.parse(SCRIPT.read_text())):
        if isinstance(node, ast.Import):
            found |= {name.name.split(".")[0] for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0
            found.add(str(node.module).split(".")[0])
    assert found - set(sys.stdlib_module_names) == {"numpy", "pycuda", "cuda"}


# -------------------------------------------------------------------------- runs

FLAGS = {
    "8.5.2.2": ["network EXPLICIT_BATCH", "flag INT8"],
    "8.6.2.3": ["network EXPLICIT_BATCH", "flag INT8"],
    "10.3.0": ["network EXPLICIT_BATCH+STRONGLY_TYPED"],
    "11.0.0": ["network STRONGLY_TYPED"],
}


@pytest.mark.parametrize(("version", "expected"), FLAGS.items())
def test_each_version_gets_what_it_has(
    version: str, expected: list[str], kit: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = Device(monkeypatch, version)
    on_device.run_kit(kit, rebuild=False, rounds=0, warmup=0)
    typed = [entry for entry in device.log if entry.startswith(("network", "flag"))]
    assert typed == expected


def test_it_builds_answers_compares_and_times(kit: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    device = Device(monkeypatch, "10.3.0")
    found = on_device.run_kit(kit, rebuild=False, rounds=3, warmup=1)
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
    assert found["golden"] == {
        "n": 10,
        "finite": True,
        "agreement": 1.0,
        "min_agreement": 0.9,
        "mean_drift": 0.0,
        "max_mean_drift": 0.05,
        "as_expected": True,
    }
    assert found["latency_ms"]["n"] == 3
    assert found["latency_ms"]["samples"] == [0.5, 0.5, 0.5]
    assert found["warning"] == ""
    assert device.cuda.closed


def test_the_second_run_loads_what_the_first_built(
    kit: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = Device(monkeypatch, "10.3.0")
    assert on_device.run_kit(kit, rebuild=False, rounds=0, warmup=0)["engine"] == "built"
    assert on_device.run_kit(kit, rebuild=False, rounds=0, warmup=0)["engine"] == "loaded"
    assert device.log.count("build") == 1
    assert on_device.run_kit(kit, rebuild=True, rounds=0, warmup=0)["engine"] == "built"
    assert "timing cache of 6 bytes" in device.log  # of the first build


def test_another_tensorrt_or_another_graph_builds_anew(
    kit: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Device(monkeypatch, "8.6.2")
    on_device.run_kit(kit, rebuild=False, rounds=0, warmup=0)
    Device(monkeypatch, "10.3.0")
    assert on_device.run_kit(kit, rebuild=False, rounds=0, warmup=0)["engine"] == "built"
    with (kit / "model.onnx").open("ab") as stream:
        stream.write(b"\n")
    assert on_device.run_kit(kit, rebuild=False, rounds=0, warmup=0)["engine"] == "built"


def test_a_version_that_the_kit_was_not_checked_for_is_told(
    kit: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Device(monkeypatch, "10.7.0")
    found = on_device.run_kit(kit, rebuild=False, rounds=0, warmup=0)
    assert found["warning"] == ("this is TensorRT 10.7.0; the kit was checked for 8.5.2, 10.3.0")


def call_main(kit: Path, monkeypatch: pytest.MonkeyPatch, *options: str) -> int:
    monkeypatch.setattr(sys, "argv", ["on_device.py", "--folder", str(kit), *options])
    return on_device.main()


def test_other_answers_exit_with_1(
    kit: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Device(monkeypatch, "10.3.0")
    assert call_main(kit, monkeypatch, "--rounds", "0") == 0
    Device(monkeypatch, "10.3.0", answer=lambda images: answer(images)[:, ::-1])
    capsys.readouterr()
    assert call_main(kit, monkeypatch, "--rounds", "0") == 1
    assert not json.loads(capsys.readouterr().out)["golden"]["as_expected"]


def test_answers_that_are_no_numbers_are_not_as_expected() -> None:
    expected = np.full((2, 3), 1 / 3, np.float32)
    found = on_device.compare(expected, np.full((2, 3), np.nan, np.float32), 0.0, 1.0)
    assert found["as_expected"] is False
    assert found["mean_drift"] is None


@pytest.mark.parametrize(
    ("version", "where"), [("8.5.2", "node 3 (unknown operator)"), ("10.3.0", "second (Conv)")]
)
def test_a_refused_graph_exits_with_2_and_the_reason(
    version: str,
    where: str,
    kit: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    Device(monkeypatch, version, refuse="zero point is not zero")
    assert call_main(kit, monkeypatch) == 2
    assert f"{where}: zero point is not zero" in capsys.readouterr().err


def test_a_timing_cache_of_another_gpu_exits_with_2(
    kit: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (kit / "timing.cache").write_bytes(b"of another GPU")
    Device(monkeypatch, "10.3.0")
    assert call_main(kit, monkeypatch) == 2
    assert "timing.cache is of another GPU or TensorRT; remove it" in capsys.readouterr().err


def test_a_missing_file_exits_with_2(
    kit: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (kit / "kit.json").unlink()
    assert call_main(kit, monkeypatch) == 2
    assert "kit.json" in capsys.readouterr().err


def test_an_engine_of_another_version_does_not_load() -> None:
    memory = FakeMemory()
    trt = FakeTensorRT("10.3.0", memory, answer)
    with pytest.raises(on_device.BuildError, match="the engine does not load here"):
        on_device.Runner(trt, FakeCuda(memory), b"plan of 8.5.2")


def test_images_of_another_size_are_refused() -> None:
    memory = FakeMemory()
    trt = FakeTensorRT("10.3.0", memory, answer)
    runner = on_device.Runner(trt, FakeCuda(memory), b"plan of 10.3.0")
    with pytest.raises(ValueError, match="could not broadcast"):
        runner.predict(np.zeros((1, 9, 9, 3), np.uint8))


def test_only_tensorrt_for_rtx_builds_for_another_gpu() -> None:
    trt = FakeTensorRT("10.3.0", FakeMemory(), answer)
    with pytest.raises(on_device.BuildError, match="builds for the GPU it runs on"):
        on_device.build_from_onnx(trt, b"", "int8", capabilities=("SM87",))


# ------------------------------------------------------------- without stand-ins


def start_script(kit: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """The script in a process of its own that cannot import lesiontk."""
    script = kit / "on_device.py"
    script.write_text(SCRIPT.read_text())
    hidden = "import sys, runpy; sys.modules['lesiontk'] = None; sys.argv = sys.argv[1:]; "
    command = [sys.executable, "-c", hidden + "runpy.run_path(sys.argv[0], run_name='__main__')"]
    return subprocess.run(
        [*command, str(script), *options], capture_output=True, text=True, check=False
    )


@pytest.mark.skipif(not explain_no_gpu(), reason="there is a GPU that TensorRT can use")
def test_without_a_gpu_it_builds_with_tensorrt_for_rtx_and_exits_with_3(kit: Path) -> None:
    pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed")
    done = start_script(kit)
    assert done.returncode == 3, done.stderr
    assert "no GPU can be used (pycuda: " in done.stderr
    assert (kit / "engine.plan").stat().st_size > 1000
    assert json.loads((kit / "engine.json").read_text())["tensorrt"].startswith("tensorrt_rtx ")


@pytest.mark.gpu
@pytest.mark.skipif(bool(explain_no_gpu()), reason=f"no GPU: {explain_no_gpu()}")
def test_on_a_gpu_it_answers_the_golden_images(kit: Path, int8: onnx.ModelProto) -> None:
    images = pictures(10)
    np.savez(kit / "golden.npz", images=images, probabilities=run_model(int8, images))
    done = start_script(kit, "--rounds", "20")
    assert done.returncode == 0, done.stderr
