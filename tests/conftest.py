"""What several folders of tests share."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from lesiontk.data.synthetic.dataset import write_synthetic_dataset
from lesiontk.store import Store


def pin_worker() -> None:
    """Give each of pytest-xdist's processes one core, before a runtime counts them.

    TensorFlow, ONNX Runtime and XNNPACK spin while they wait: two processes with a thread for
    every core would take the cores from each other.
    """
    worker = os.environ.get("PYTEST_XDIST_WORKER", "")
    if worker and hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cores[int(worker.removeprefix("gw")) % len(cores)]})


pin_worker()
os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # tests that import onnxruntime themselves send nothing


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """An empty workspace."""
    return Store(tmp_path / "workspace", threads=1)


@pytest.fixture(scope="session")
def synthetic_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Thirty-eight tiny lesions in HAM10000's layout, three of a class at least; do not write."""
    folder = tmp_path_factory.mktemp("synthetic")
    write_synthetic_dataset(folder, lesions=38, image_size=24, seed=5)
    return folder


@pytest.fixture(autouse=True)
def restored_log() -> Iterator[None]:
    """Commands set up lesiontk's log; a test that follows must find it untouched."""
    log = logging.getLogger("lesiontk")
    before = log.handlers[:], log.level, log.propagate
    yield
    log.handlers[:], log.level, log.propagate = before
