"""A cluster of two machines, both on this one: the second uses a workspace of its own."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from lesiontk.errors import UsageError
from lesiontk.search.trial_record import COMPLETE
from lesiontk.store import SharedStore, Store
from lesiontk.workflow import ray_cluster
from lesiontk.workflow.executor import WorkerOptions, open_executor
from tests.workflow.ray_here import quiet_warnings, worker_environment
from tests.workflow.stub_study import make_space, sees_no_workspace, stub_search

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def homes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("homes")


@pytest.fixture(scope="module")
def address(homes: Path) -> Iterator[str]:
    """The address of two nodes with two cores each."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    address = f"127.0.0.1:{port}"
    os.environ["RAY_AUTH_MODE"] = "disabled"  # the nodes have homes of their own
    first = ["--head", f"--port={port}", "--include-dashboard=false"]
    with ExitStack() as stack:
        folder = stack.enter_context(
            tempfile.TemporaryDirectory(prefix="r-", dir="/tmp", ignore_cleanup_errors=True)
        )
        for number, options in enumerate([[*first, f"--temp-dir={folder}"],
                                          [f"--address={address}"]]):  # fmt: skip
            command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--num-cpus=2",
                       "--object-store-memory=80000000", "--disable-usage-stats", "--block",
                       *options]  # fmt: skip
            (homes / str(number)).mkdir()
            node = subprocess.Popen(
                command, env={**worker_environment(), "HOME": str(homes / str(number))},
                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            )  # fmt: skip
            stack.callback(node.wait)
            stack.callback(node.terminate)
            wait_until_open(port)
        yield address
    del os.environ["RAY_AUTH_MODE"]


def wait_until_open(port: int) -> None:
    for _ in range(600):
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.1)
        else:
            return
    raise TimeoutError


def wait_for_nodes(number: int) -> None:
    ray = ray_cluster.import_ray()
    for _ in range(600):
        if sum(node["Alive"] for node in ray.nodes()) == number:
            return
        time.sleep(0.1)
    raise TimeoutError


def test_machines_share_artefacts_through_a_store(
    address: str, tmp_path: Path, homes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "shared").mkdir()
    options = WorkerOptions("ray", address, parallel=4)
    with quiet_warnings(), ray_cluster._join(ray_cluster.import_ray(), address):
        wait_for_nodes(2)
    monkeypatch.setattr(ray_cluster, "probe_node", sees_no_workspace)
    with (
        quiet_warnings(),
        pytest.raises(UsageError, match="expected a folder that all machines have, or --shared"),
        open_executor(Store(tmp_path / "alone", threads=1), options),
    ):
        pass
    store = Store(tmp_path / "w", threads=1, shared=SharedStore(f"file://{tmp_path}/shared"))
    search = stub_search(store, make_space(trials=8), seconds=0.3)
    with quiet_warnings(), open_executor(store, options) as executor:
        search.run(executor)
    assert {trial.state for trial in search.study.list_trials()} == {COMPLETE}
    elsewhere = list(homes.glob("*/.cache/lesiontk/*/engine-*"))
    assert elsewhere
    assert {folder.name for folder in elsewhere} < set(store.list_names())
