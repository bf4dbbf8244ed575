"""What the doctor finds, on this machine and on others that TensorRT sees."""

from __future__ import annotations

from typing import Any

import pytest
from click.testing import CliRunner

from lesiontk.backends import BACKENDS
from lesiontk.backends.tensorrt import backend as tensorrt_backend
from lesiontk.backends.tensorrt.installation import Installation, explain_no_gpu
from lesiontk.cli.main import cli
from lesiontk.records import Availability
from lesiontk.workflow import doctor
from lesiontk.workflow.doctor import BackendFindings, MachineFindings, examine_machine

CPU = ("keras", "tflite", "onnx")


def find_backend(found: MachineFindings, name: str) -> BackendFindings:
    (entry,) = [entry for entry in found.backends if entry.name == name]
    return entry


@pytest.fixture
def tensorrt(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Examine a machine with tensorrt 10.3.0 of which this is missing; only TensorRT is asked."""
    only = [("tensorrt", BACKENDS.get("tensorrt"))]
    monkeypatch.setattr(doctor, "_backends", lambda: only)
    installed = Installation("tensorrt", "10.3.0")
    monkeypatch.setattr(tensorrt_backend, "find_installation", lambda: installed)

    def examine(no_gpu: str, no_builder: str) -> tuple[BackendFindings, str]:
        monkeypatch.setattr(tensorrt_backend, "explain_no_gpu", lambda: no_gpu)
        monkeypatch.setattr(tensorrt_backend, "explain_no_builder", lambda: no_builder)
        text = CliRunner().invoke(cli, ["doctor"]).output
        return find_backend(examine_machine(), "tensorrt"), text.partition("\ntensorrt: ")[2]

    return examine


def test_this_machine_runs_what_computes_on_its_cpu() -> None:
    found = examine_machine()
    assert found.machine.cores >= 1
    for name in CPU:
        backend = find_backend(found, name)
        assert backend.available
        assert backend.runs
        assert backend.emulated_by is None
        for entry in backend.precisions:
            assert entry.runs
            assert entry.converts, entry.reason
            assert not entry.precision.startswith("int8") or entry.note == found.int8
    tensorrt = find_backend(found, "tensorrt")
    assert tensorrt.runs == (explain_no_gpu() == "")
    assert all(entry.note == "" for entry in tensorrt.precisions)  # the CPU's word


def test_without_a_gpu_tensorrt_does_not_run(tensorrt: Any) -> None:
    lacking = "there is no driver, neither pycuda nor cuda-python is installed"
    found, text = tensorrt(lacking, "tensorrt 10.3.0 needs a GPU to build, but there is no driver")
    assert found.available
    assert not found.runs
    assert found.emulated_by == "ONNX Runtime on the CPU"
    assert [(e.runs, e.converts) for e in found.precisions] == [(False, True)] * 4
    assert " runs" not in text.replace("CPU runs instead", "")
    assert text.startswith(
        "does not run here; its graphs are made and checked, and ONNX Runtime on the CPU emulates "
        "their outputs ("
    )
    assert "  int8         emulated, is made here after calibration\n" in text
    assert f"runtime TensorRT: not here, ONNX Runtime on the CPU runs instead ({lacking};" in text
    assert (
        "builder TensorRT: not here (tensorrt 10.3.0 needs a GPU to build, but there is no" in text
    )


def test_on_a_gpu_tensorrt_runs(tensorrt: Any) -> None:
    """The twin of the test above."""
    found, text = tensorrt("", "")
    assert found.runs
    assert found.emulated_by is None
    assert all(entry.runs for entry in found.precisions)
    assert text.startswith("runs here (")
    assert "  int8         runs, is made here after calibration\n" in text
    assert "runtime TensorRT: runs (tensorrt 10.3.0)" in text
    assert "builder TensorRT: runs (tensorrt 10.3.0)" in text


def test_a_back_end_that_is_not_installed_is_not_examined(monkeypatch: pytest.MonkeyPatch) -> None:
    lacking = Availability(False, "the package onnx is not installed")
    monkeypatch.setattr(BACKENDS.get("tensorrt"), "available", lambda self: lacking)
    found = find_backend(examine_machine(), "tensorrt")
    assert (found.runs, found.emulated_by, found.execution) == (False, None, ())
    assert not any(entry.converts for entry in found.precisions)
    text = CliRunner().invoke(cli, ["doctor"]).output.partition("\ntensorrt: ")[2]
    assert text.startswith("not here: the package onnx is not installed\n")
    assert "  int8         not here\n" in text
