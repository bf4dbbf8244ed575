"""What several folders of tests share."""

from __future__ import annotations

import gc
import logging
import os
import shutil
from collections.abc import Iterator
from functools import cache, partial
from importlib import metadata
from pathlib import Path
from typing import Any, BinaryIO

import pytest
from hypothesis import settings
from matplotlib.figure import Figure

from lesiontk.backends.onnx import from_tflite
from lesiontk.data.synthetic.dataset import write_synthetic_dataset
from lesiontk.deploy import bundle
from lesiontk.stages.input_checks import InputChecksConfig
from lesiontk.store import Store
from tests.preloaded import PreloadedProcess

RUN_SEPARATELY = from_tflite._run_module


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
gc.set_threshold(20_000, 25, 25)  # collecting TensorFlow's many objects: a twentieth of the time
os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # tests that import onnxruntime themselves send nothing
settings.register_profile("lesiontk", deadline=None)  # a busy machine is no failure
settings.load_profile("lesiontk")


LONGEST_FIRST = (
    "end_to_end/test_chain", "plugin", "stages", "train/test_loop", "compress", "api",
    "end_to_end", "conformance", "workflow", "models", "train", "backends", "deploy",
)  # fmt: skip
"""Folders and files. What two of them share stands apart: a worker would wait for the other."""

RENDERED = ("report/", "end_to_end/", "train/test_curves.py")
"""Folders and files whose tests look at figures."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give the workers the longest files first: then they end together."""

    def rank(item: pytest.Item) -> int:
        path = item.path.relative_to(Path(__file__).parent).as_posix()
        places = (n for n, start in enumerate(LONGEST_FIRST) if path.startswith(start))
        return next(places, len(LONGEST_FIRST))

    items.sort(key=rank)


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


@pytest.fixture(scope="session")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that all workers of a run share."""
    base = tmp_path_factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


@pytest.fixture(scope="session")
def tiny_workspace(run_folder: Path) -> Path:
    """Data, split and the trained network of `tests.tiny`, for all workers; do not write."""
    from lesiontk.workflow.train import train_recipe
    from tests.tiny.network import registered
    from tests.tiny.recipe import tiny_recipe

    folder = run_folder / "tiny"
    with registered():
        train_recipe(Store(folder, threads=1), tiny_recipe())  # its locks let one worker make it
    return folder


@pytest.fixture(scope="module")
def tiny_store(tiny_workspace: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """A copy of that workspace, for the tests of a module; its engines are measured here."""
    from tests.measuring import measuring_here
    from tests.tiny.network import registered

    folder = tmp_path_factory.mktemp("tiny") / "workspace"
    with registered(), measuring_here():
        yield Store(Path(shutil.copytree(tiny_workspace, folder)))


@pytest.fixture(scope="session", autouse=True)
def preloaded_tf2onnx() -> Iterator[None]:
    """Files are converted by forks of one process: TensorFlow is not loaded for each of them."""
    process = PreloadedProcess(from_tflite.SETTINGS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(from_tflite, "_run_module", partial(process.run, from_tflite.__name__))
        yield
    process.close()


@pytest.fixture(scope="session", autouse=True)
def golden_images_once() -> Iterator[None]:
    """A bundle's golden images are drawn once: they take longer than all else in it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bundle, "make_golden_images", cache(bundle.make_golden_images))
        yield


@pytest.fixture(scope="session", autouse=True)
def versions_once() -> Iterator[None]:
    """The version of a distribution is read once: a plan asks for each a dozen times."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(metadata, "version", cache(metadata.version))
        yield


@pytest.fixture(scope="module", autouse=True)
def figures_not_rendered(request: pytest.FixtureRequest) -> Iterator[None]:
    """Figures are made everywhere, and turned into SVG or PNG where tests look at them."""
    path = request.path.relative_to(Path(__file__).parent).as_posix()
    with pytest.MonkeyPatch.context() as patch:
        if not path.startswith(RENDERED):
            patch.setattr(Figure, "savefig", save_nothing)
        yield


def save_nothing(_: Figure, file: Path | BinaryIO, **__: Any) -> None:
    """Write an empty picture."""
    if isinstance(file, Path):
        file.touch()
    else:
        file.write(b"<svg/>")


@pytest.fixture(scope="session", autouse=True)
def few_other_images() -> Iterator[None]:
    """Input checks draw ten pictures of a kind: hundreds take longer than a tiny network."""
    field = InputChecksConfig.model_fields["other_images"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(field, "default", 10)
        InputChecksConfig.model_rebuild(force=True)
        yield
    InputChecksConfig.model_rebuild(force=True)


@pytest.fixture
def separate_tf2onnx(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each file is converted in a process of its own, as outside of tests."""
    monkeypatch.setattr(from_tflite, "_run_module", RUN_SEPARATELY)


@pytest.fixture(autouse=True)
def restored_log() -> Iterator[None]:
    """Commands set up lesiontk's log; a test that follows must find it untouched."""
    log = logging.getLogger("lesiontk")
    before = log.handlers[:], log.level, log.propagate
    yield
    log.handlers[:], log.level, log.propagate = before
