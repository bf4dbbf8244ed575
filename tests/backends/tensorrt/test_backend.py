"""Which back end opens a file, what runs it, and what the machine lacks."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from lesiontk.backends import open_engine
from lesiontk.backends.backend import QuantizationPlan, dump_spec
from lesiontk.backends.onnx.backend import ONNXEngine, tensor_reader
from lesiontk.backends.onnx.file import read_backend_name
from lesiontk.backends.onnx.graph import embed_spec
from lesiontk.backends.tensorrt import backend as tensorrt_backend
from lesiontk.backends.tensorrt import cuda_bindings, installation, on_device
from lesiontk.backends.tensorrt.backend import TensorRTBackend, choose_half, find_ranges
from lesiontk.backends.tensorrt.engine import EmulatedEngine, GPUEngine
from lesiontk.errors import MissingRequirementError
from tests.backends.tensorrt.device import answer
from tests.backends.tensorrt.fake_tensorrt import NO_DRIVER, FakeCuda, FakeMemory, FakeTensorRT
from tests.backends.tensorrt.graphs import SPEC, pictures, run_model


@pytest.fixture
def file(tmp_path: Path, int8: onnx.ModelProto) -> Path:
    embed_spec(int8, dump_spec(SPEC))
    onnx.save(int8, tmp_path / "renamed.onnx")
    return tmp_path / "renamed.onnx"


# ------------------------------------------------------------------------- files


def test_a_files_description_says_which_back_end_opens_it(
    file: Path, int8: onnx.ModelProto, tmp_path: Path
) -> None:
    assert read_backend_name(file) == "tensorrt"
    with open_engine(file) as engine:
        assert isinstance(engine, EmulatedEngine | GPUEngine)
    embed_spec(int8, dump_spec(replace(SPEC, backend="onnx")))
    onnx.save(int8, tmp_path / "other.onnx")
    assert read_backend_name(tmp_path / "other.onnx") == "onnx"
    with open_engine(tmp_path / "other.onnx") as engine:
        assert type(engine) is ONNXEngine


@pytest.mark.parametrize("share", [0.0, 0.2, 0.9, 0.999])
def test_a_damaged_file_names_no_back_end(share: float, file: Path) -> None:
    content = file.read_bytes()
    file.write_bytes(content[: int(share * len(content))])
    assert read_backend_name(file) is None


def test_noise_names_no_back_end(tmp_path: Path) -> None:
    for seed in range(50):
        noise = np.random.default_rng(seed).bytes(400)
        (tmp_path / "noise.onnx").write_bytes(noise)
        assert read_backend_name(tmp_path / "noise.onnx") is None
    assert read_backend_name(tmp_path / "absent.onnx") is None


# --------------------------------------------------------------------- execution


def test_without_a_gpu_it_is_emulated_and_says_so(
    file: Path, int8: onnx.ModelProto, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tensorrt_backend, "explain_no_gpu", lambda: "there is no driver")
    with open_engine(file) as engine:
        (execution,) = engine.describe_execution()
        np.testing.assert_array_equal(engine.predict(pictures(2)), run_model(int8, pictures(2)))
    assert execution.fell_back
    assert (execution.asked, execution.used) == ("TensorRT", "ONNX Runtime on the CPU")
    assert execution.detail.startswith("there is no driver; outputs are emulated")
    examined, builder = TensorRTBackend().examine_runtime()
    assert examined == execution
    assert (builder.kind, builder.asked) == ("builder", "TensorRT")


def test_an_emulated_engine_has_no_profile(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensorrt_backend, "explain_no_gpu", lambda: "there is no driver")
    with pytest.raises(MissingRequirementError, match=r"is emulated here \(there is no driver\)"):
        TensorRTBackend().profile(file, rounds=3)


def test_on_a_gpu_it_runs_in_tensorrt(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    memory = FakeMemory()
    cuda = FakeCuda(memory)
    monkeypatch.setattr(tensorrt_backend, "explain_no_gpu", lambda: "")
    trt = FakeTensorRT("10.3.0", memory, answer)
    monkeypatch.setattr(on_device, "import_tensorrt", lambda: trt)
    monkeypatch.setattr(cuda_bindings, "open_cuda", lambda: cuda)
    with open_engine(file) as engine:
        assert isinstance(engine, GPUEngine)
        np.testing.assert_array_equal(engine.predict(pictures(3)), answer(pictures(3)))
        assert engine.time_images(pictures(3), rounds=4, warmup=1) == (0.5,) * 4
        profile = engine.profile(rounds=3)
        assert profile.whole_ms == (0.5,) * 3
        nodes = [node.name or node.output[0] for node in onnx.load(file).graph.node]
        assert [operator.name for operator in profile.operators] == nodes
        assert profile.operators[0].samples_ms == (0.25,) * 3
        (execution,) = engine.describe_execution()
        assert not execution.fell_back
        assert execution.detail == "tensorrt 10.3.0"
        assert engine.spec == SPEC
    assert cuda.closed


# ------------------------------------------------------------------ installation


def hide(monkeypatch: pytest.MonkeyPatch, *modules: str) -> None:
    real = installation.importlib.util.find_spec

    def find_spec(name: str) -> object:
        return None if name in modules else real(name)

    monkeypatch.setattr(installation.importlib.util, "find_spec", find_spec)


def test_all_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    hide(monkeypatch, "tensorrt", "tensorrt_rtx", "pycuda", "cuda.bindings", "cuda.cudart")
    monkeypatch.setattr(installation, "_explain_no_driver", lambda: "there is no driver")
    assert installation.find_installation() is None
    assert installation.explain_no_gpu() == (
        "neither tensorrt nor tensorrt-rtx is installed, there is no driver, "
        "neither pycuda nor cuda-python is installed"
    )
    assert TensorRTBackend().available().available  # graphs are made and emulated anywhere


@pytest.mark.parametrize("binding", ["pycuda", "cuda.bindings", "cuda.cudart"])
def test_one_binding_is_enough(binding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installation, "find_installation", lambda: "some")
    monkeypatch.setattr(installation, "_explain_no_driver", lambda: "")
    monkeypatch.setattr(installation, "_is_there", lambda module: module == binding)
    assert installation.explain_no_gpu() == ""


def test_a_module_below_one_that_is_missing_is_missing() -> None:
    assert not installation._is_there("nowhere.bindings")
    assert not installation._is_there("json.bindings")
    assert installation._is_there("json.decoder")


def test_a_machine_without_a_driver_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(name: str) -> None:
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr(installation.ctypes, "CDLL", load)
    said = installation._explain_no_driver.__wrapped__()
    assert said == "no NVIDIA driver is installed (libcuda.so.1 does not load)"


class Driver:
    """libcuda with so many GPUs, or an error."""

    def __init__(self, code: int = 0) -> None:
        self.code = code

    def cuInit(self, flags: int) -> int:  # noqa: N802 - the driver's own name
        return self.code

    def cuDeviceGetCount(self, count: object) -> int:  # noqa: N802
        return 0


@pytest.mark.parametrize(
    ("code", "said"),
    [(100, "the NVIDIA driver does not start (CUDA error 100)"),
     (0, "the NVIDIA driver finds no GPU")],
)  # fmt: skip
def test_a_driver_that_finds_nothing_says_so(
    code: int, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(installation.ctypes, "CDLL", lambda name: Driver(code))
    assert installation._explain_no_driver.__wrapped__() == said


def test_a_tensorrt_without_a_driver_is_no_builder() -> None:
    trt = FakeTensorRT("10.3.0", FakeMemory(), answer, driver=False)
    with pytest.raises(
        on_device.MissingRequirementError, match=f"builder requires .*: {NO_DRIVER}"
    ):
        on_device.build_from_onnx(trt, b"", "int8")


@pytest.mark.parametrize(
    ("module", "driver", "said"),
    [(None, "", "neither tensorrt nor tensorrt-rtx is installed; the latter builds without a GPU"),
     ("tensorrt", "no driver loads", "tensorrt 10.3.0 needs a GPU to build, but no driver loads"),
     ("tensorrt", "", ""),
     ("tensorrt_rtx", "no driver loads", "")],
)  # fmt: skip
def test_it_says_why_nothing_is_built(
    module: str | None, driver: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = installation.Installation(module, "10.3.0") if module else None
    monkeypatch.setattr(installation, "find_installation", lambda: found)
    monkeypatch.setattr(installation, "_explain_no_driver", lambda: driver)
    assert installation.explain_no_builder() == said


# ------------------------------------------------------------------------ ranges


def test_the_inputs_range_is_that_of_all_bytes(source: onnx.ModelProto) -> None:
    """Whatever the calibration images hold."""
    grey = np.full((2, 8, 8, 3), 128, np.uint8)
    ranges = find_ranges(source, tensor_reader(source), QuantizationPlan(grey, "min_max"))
    assert ranges["planes"] == (-1.0, 127 / 128)
    assert ranges["r1"][1] < 10


@pytest.mark.parametrize(
    ("tensor", "greatest", "half"),
    [("r1", 8000.0, {"c2"}), ("r1", 9000.0, set()), ("r2", 1e9, {"c2"})],
)
def test_a_layer_whose_values_may_leave_float16_is_kept_in_float32(
    tensor: str, greatest: float, half: set[str], float32: onnx.ModelProto
) -> None:
    """r1 is what the second convolution reads; r2 comes behind the addition."""
    assert choose_half(float32, {"c2"}, {"r1": (0.0, 1.0), tensor: (0.0, greatest)}) == half


def test_importing_the_back_end_imports_neither_onnx_nor_tensorrt() -> None:
    import subprocess

    code = (
        "import sys, lesiontk.backends.tensorrt.backend as b, lesiontk.workflow.plan; "
        "b.TensorRTBackend().available(); "
        "print(sorted({'onnx', 'onnxruntime', 'tensorrt', 'tensorrt_rtx'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
