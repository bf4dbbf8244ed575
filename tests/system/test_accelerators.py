"""GPUs and their driver are found, or it is said which of them is missing."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from lesiontk.system import accelerators
from lesiontk.system.accelerators import explain_gpu, list_accelerators


@pytest.fixture
def no_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with nothing; the folder stands in for /proc."""
    monkeypatch.setattr("shutil.which", lambda name: None)
    monkeypatch.setattr(accelerators, "JETSON", tmp_path / "model")
    monkeypatch.setattr(accelerators, "DRIVER", tmp_path / "version")
    monkeypatch.setattr(accelerators, "has_cuda_library", lambda: False)
    return tmp_path


def answer(monkeypatch: pytest.MonkeyPatch, text: str, *, fails: bool = False) -> None:
    """Let nvidia-smi be there and say `text`."""

    def run(command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        if fails:
            raise subprocess.CalledProcessError(9, command)
        return subprocess.CompletedProcess(command, 0, text, "")

    monkeypatch.setattr("shutil.which", lambda name: f"/bin/{name}")
    monkeypatch.setattr(subprocess, "run", run)


def test_gpus_are_described_by_what_a_figure_depends_on(
    no_gpu: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer(monkeypatch, "A GPU, 550.54, 81559 MiB, 9.0\nA GPU, 550.54, 81559 MiB, 9.0\n")
    found = list_accelerators()
    assert len(found) == 2
    assert found[0] == {
        "name": "A GPU",
        "driver": "550.54",
        "memory": "81559 MiB",
        "compute": "9.0",
    }
    assert "A GPU, driver 550.54, memory 81559 MiB, compute 9.0" in explain_gpu(found)


def test_a_driver_without_a_gpu_is_told(no_gpu: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answer(monkeypatch, "", fails=True)
    assert list_accelerators() == []
    assert "driver is installed but finds no GPU" in explain_gpu([])


def test_a_machine_with_neither_is_told(no_gpu: Path) -> None:
    assert list_accelerators() == []
    assert "No NVIDIA driver and no GPU" in explain_gpu([])


def test_a_library_alone_is_told(no_gpu: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accelerators, "has_cuda_library", lambda: True)
    assert "libcuda" in explain_gpu([])


@pytest.mark.parametrize(
    ("text", "expected"),
    [("NVIDIA Jetson Orin Nano\0", [{"name": "NVIDIA Jetson Orin Nano"}]), ("Raspberry Pi 5", [])],
)
def test_a_jetson_is_known_by_its_device_tree(
    no_gpu: Path, text: str, expected: list[dict[str, str]]
) -> None:
    (no_gpu / "model").write_bytes(text.encode())
    assert list_accelerators() == expected
