"""A local store and a real tracking server on loopback, each with MLflow's own client."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from lesiontk.tracking.mlflow_tracker import STORE, MlflowTracker, import_mlflow

OWN = ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME", "MLFLOW_EXPERIMENT_ID")


@dataclass(frozen=True)
class Place:
    """A tracking store, and what it has."""

    workspace: Path
    client: Any
    database: Path
    is_local: bool

    def runs(self, **tags: str) -> list[Any]:
        known = self.client.search_experiments()
        ids = [e.experiment_id for e in known if self.is_local or self.workspace.name in e.name]
        chosen = [f"tags.`lesiontk.{name}` = '{value}'" for name, value in tags.items()]
        return list(self.client.search_runs(ids, " and ".join(chosen)))

    def history(self, run: Any, metric: str) -> list[tuple[int, float]]:
        found = self.client.get_metric_history(run.info.run_id, metric)
        return [(metric.step, metric.value) for metric in found]


@pytest.fixture(autouse=True)
def own_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests have MLflow's settings to themselves, and wait for nothing."""
    for name in OWN:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")


@pytest.fixture(scope="session")
def empty_store(run_folder: Path) -> Path:
    """The database of a store that was made from nothing, for all workers; do not write."""
    folder = run_folder / "mlflow"
    with pytest.MonkeyPatch.context() as patch:
        for name in OWN:
            patch.delenv(name, raising=False)
        folder.mkdir(exist_ok=True)
        (folder / f".{STORE}").write_text("a process was killed while it made this")
        MlflowTracker(folder)
    return folder / STORE


@contextmanager
def serving(database: Path) -> Iterator[str]:
    """Run MLflow's server over a database, and yield its address."""
    command = [sys.executable, "-W", "ignore", "-m", "tests.tracking.server_process", str(database)]
    with subprocess.Popen(
        command,
        cwd=Path(__file__).parents[2],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        assert process.stdout is not None
        try:
            yield f"http://127.0.0.1:{int(process.stdout.readline())}"
        finally:
            process.terminate()


@pytest.fixture(scope="session")
def server(
    empty_store: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, Path]]:
    """The address of a server, and its database."""
    database = Path(shutil.copy(empty_store, tmp_path_factory.mktemp("server") / STORE))
    with serving(database) as address:
        yield address, database


@pytest.fixture(params=["local", "server"])
def place(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    empty_store: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Place:
    """The store of a workspace, then a server, which has an experiment of each test."""
    mlflow = import_mlflow()
    is_local = request.param == "local"
    if is_local:
        database = Path(shutil.copy(empty_store, tmp_path / STORE))
        uri = f"sqlite:///{database}"
    else:
        uri, database = request.getfixturevalue("server")
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", tmp_path.name)
    return Place(tmp_path, mlflow.MlflowClient(tracking_uri=uri), database, is_local)
