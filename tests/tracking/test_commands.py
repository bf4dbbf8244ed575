"""Commands with a real server: epochs arrive live, and a training survives the server's end."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import takewhile
from pathlib import Path

import pytest

from lesiontk.tracking.mlflow_tracker import STORE, import_mlflow
from tests.network_attempts import isolated, list_attempts
from tests.tracking.conftest import Place, serving

__all__ = ["isolated"]

TRAIN = [
    "train", "cnn_7class", "--set", "data.source=synthetic", "--set", "data.image_size=32",
    "--set", "data.synthetic.lesions=84", "--set", "data.synthetic.image_size=48",
    "--set", "train.epochs=4",
]  # fmt: skip


def start(workspace: Path, address: str | None, *words: str) -> subprocess.Popen[str]:
    settings = {**os.environ, "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}
    if address is not None:
        settings["MLFLOW_TRACKING_URI"] = address
    command = [sys.executable, "-W", "ignore", "-m", "lesiontk", *words]
    return subprocess.Popen(
        [*command, "--workspace", str(workspace), "--track", "mlflow", "--json"],
        env=settings, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


@contextmanager
def official_server(folder: Path) -> Iterator[str]:
    """Run `mlflow server`, as a team does, without the processes of its other features."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-W", "ignore", "-m", "mlflow", "server", "--host", "127.0.0.1",
               "--port", str(port), "--workers", "1",
               "--backend-store-uri", f"sqlite:///{folder / STORE}"]  # fmt: skip
    settings = {
        **os.environ,
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
    process = subprocess.Popen(
        command, cwd=folder, env=settings, start_new_session=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert process.stderr is not None
        assert any("Uvicorn running" in line for line in process.stderr)
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.communicate()


@pytest.mark.slow
def test_a_command_records_on_the_server_of_a_team(tmp_path: Path, empty_store: Path) -> None:
    shutil.copy(empty_store, tmp_path / STORE)
    with official_server(tmp_path) as address:
        done = start(tmp_path / "workspace", address, *TRAIN)
        output, log = done.communicate()
        assert done.returncode == 0, log
        made = json.loads(output)
        place = Place(
            tmp_path, import_mlflow().MlflowClient(address), tmp_path / STORE, is_local=True
        )
        (run,) = place.runs(kind="model")
        assert run.data.tags["lesiontk.artefact"] == made["model"]
        history = place.history(run, "validation/balanced_accuracy")
        assert [epoch for epoch, _ in history] == [1, 2, 3, 4]
        assert place.client.list_artifacts(run.info.run_id) == []
    assert not (tmp_path / "workspace" / STORE).exists()


@pytest.mark.slow
def test_a_training_survives_the_end_of_its_server_and_is_recorded_later(
    tmp_path: Path, empty_store: Path
) -> None:
    database = Path(shutil.copy(empty_store, tmp_path / STORE))
    with ExitStack() as server:
        address = server.enter_context(serving(database))
        with start(tmp_path / "workspace", address, *TRAIN) as training:
            assert training.stderr is not None
            before = list(takewhile(lambda line: not line.startswith("epoch 1:"), training.stderr))
            server.close()
            output, rest = training.communicate()
    assert training.returncode == 0, rest
    name = json.loads(output)["model"]
    warned = [line for line in (*before, *rest.splitlines()) if "mlflow" in line]
    assert len(warned) == 2
    assert "does not record" in warned[0]
    assert "the work goes on" in warned[0]
    assert warned[1].startswith(f"mlflow has not recorded 1: cnn_7class train {name}. Run the same")
    client = import_mlflow().MlflowClient(f"sqlite:///{database}")
    place = Place(tmp_path, client, database, is_local=True)
    (run,) = place.runs(kind="model")
    assert run.info.status == "RUNNING"
    with serving(database) as address:
        again = start(tmp_path / "workspace", address, *TRAIN)
        assert "mlflow" not in again.communicate()[1]
        assert again.returncode == 0
    (run,) = place.runs(kind="model")
    assert run.info.status == "FINISHED"
    for metric in ("training/loss", "validation/log_loss"):
        assert [epoch for epoch, _ in place.history(run, metric)] == [1, 2, 3, 4]


@pytest.mark.slow
def test_a_killed_training_goes_on_in_its_run(tmp_path: Path, empty_store: Path) -> None:
    workspace = tmp_path / "workspace"
    workspace.mkdir()
    database = Path(shutil.copy(empty_store, workspace / STORE))
    with start(workspace, None, *TRAIN) as killed:
        assert killed.stderr is not None
        assert any(line.startswith("epoch 2:") for line in killed.stderr)
        killed.kill()
    again = start(workspace, None, *TRAIN)
    _, log = again.communicate()
    assert again.returncode == 0
    assert "training resumes after epoch" in log
    client = import_mlflow().MlflowClient(f"sqlite:///{database}")
    place = Place(workspace, client, database, is_local=True)
    (run,) = place.runs(kind="model")
    assert run.info.status == "FINISHED"
    epochs = [epoch for epoch, _ in place.history(run, "training/loss")]
    assert sorted(epochs) == [1, 2, 3, 4]  # that of the kill may follow in the end


@pytest.mark.slow
def test_two_processes_make_the_store_of_a_workspace_together(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path\n"
        "from lesiontk.tracking.mlflow_tracker import MlflowTracker\n"
        "MlflowTracker(Path(sys.argv[1]))\n"
    )
    command = [sys.executable, "-W", "ignore", "-c", code, str(tmp_path / "workspace")]
    both = [subprocess.Popen(command) for _ in range(2)]
    assert [process.wait() for process in both] == [0, 0]


@pytest.mark.slow
def test_a_server_that_is_not_there_ends_a_command_before_any_work(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    done = start(tmp_path / "workspace", f"http://127.0.0.1:{port}", *TRAIN)
    output, log = done.communicate()
    assert done.returncode == 3
    assert output == ""
    assert "Start it, correct MLFLOW_TRACKING_URI, or leave out --track." in log
    assert not list((tmp_path / "workspace").glob("*-*"))


@pytest.mark.slow
def test_the_store_of_a_workspace_attempts_no_connection(isolated: Path) -> None:
    code = (
        "from pathlib import Path\n"
        "from lesiontk.tracking import State, TrackedRun\n"
        "from lesiontk.tracking.mlflow_tracker import MlflowTracker\n"
        "tracker = MlflowTracker(Path('workspace'))\n"
        "for number in range(300):\n"  # a first message of telemetry may come late
        "    tracker.write(TrackedRun(key=f'{number}', name='a', state=State.FINISHED,\n"
        "                             metrics={'m': 1}))\n"
    )
    assert list_attempts(isolated, sys.executable, "-W", "ignore", "-c", code) == []
    assert (isolated / "workspace" / STORE).is_file()
