"""Training shared by two workers, or two devices, takes the course that one process takes.

The workers are processes of their own on the loopback interface.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from lesiontk.errors import MissingRequirementError, UsageError
from lesiontk.recipe import Recipe, TrainSection
from lesiontk.store import Store
from lesiontk.train import distribution
from lesiontk.train.checkpoints import read_state
from lesiontk.train.distribution import check_distribution
from lesiontk.workflow.train import run_recipe, train_recipe
from tests.train.train_process import train_here

ROOT = Path(__file__).parents[2]
LIMIT = 120
"""Seconds after which a process counts as hanging."""

COURSE: dict[str, Any] = {"epochs": 3, "images": 100, "ema": 0.8, "lowest_rate": 0.5}
"""Of 100 images 33 are for validation: the last batch has one, which two cannot share."""

TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one process makes of the course."""
    scratch = tmp_path_factory.mktemp("alone")
    train_here(scratch, dict(COURSE))
    return scratch


@pytest.fixture(scope="module")
def workers(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """What two workers make of it, killed in the third epoch and started again.

    The second had not written its checkpoint of the second epoch.
    """
    folder = tmp_path_factory.mktemp("workers")
    scratches = [folder / "0", folder / "1"]
    shared = {**COURSE, "distribute": "multi_worker"}
    with run_workers(scratches, shared) as processes:
        wait_for_steps(processes[0], 2 * 4 + 1)
        for process in processes:
            process.send_signal(signal.SIGKILL)
            process.wait(LIMIT)
    assert [read_state(scratch).epoch for scratch in scratches] == [2, 2]
    (scratches[1] / "state-2.json").unlink()
    with run_workers(scratches, shared) as processes:
        for process in processes:
            _, log = process.communicate(timeout=LIMIT)
            assert process.returncode == 0, log
    return scratches


def wait_for_steps(process: subprocess.Popen[str], count: int) -> None:
    assert process.stdout is not None
    lines = iter(process.stdout.readline, "")
    for _ in range(count):
        if next(lines, "") != "step\n":
            pytest.fail(f"the worker ended early: {process.communicate(timeout=LIMIT)[1]}")


@contextmanager
def run_workers(
    scratches: list[Path], *options: Mapping[str, Any]
) -> Iterator[list[subprocess.Popen[str]]]:
    """Start one worker for each folder, with options of its own or the same; end all at the end."""
    ports = find_ports(len(scratches))
    cluster = {"worker": [f"127.0.0.1:{port}" for port in ports]}
    processes: list[subprocess.Popen[str]] = []
    watch = threading.Timer(LIMIT, end, [processes])
    watch.start()
    try:
        for index, scratch in enumerate(scratches):
            task = {"cluster": cluster, "task": {"type": "worker", "index": index}}
            mine = options[index % len(options)]
            processes.append(
                start([str(scratch), json.dumps(mine)], {"TF_CONFIG": json.dumps(task)})
            )
        yield processes
    finally:
        watch.cancel()
        end(processes)
        for process in processes:
            with process:  # closes its pipes
                process.wait(LIMIT)


def end(processes: list[subprocess.Popen[str]]) -> None:
    for process in processes:
        process.kill()


def start(arguments: list[str], environment: Mapping[str, str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.train.train_process", *arguments],
        cwd=ROOT,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def find_ports(count: int) -> list[int]:
    """Return ports that are free now; all are held until the last is found."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [int(each.getsockname()[1]) for each in sockets]
    finally:
        for each in sockets:
            each.close()


def read_curves(scratch: Path) -> NDArray[np.float64]:
    """Return the curves, [epochs, scores]."""
    rows = json.loads((scratch / "result.json").read_text())
    return np.array([list(row.values()) for row in rows])


def read_weights(scratch: Path) -> list[NDArray[np.float32]]:
    with np.load(scratch / "result.npz") as arrays:
        return [arrays[name] for name in arrays.files]


def differ(first: Path, second: Path) -> float:
    """Return the largest difference between two courses, in curves or weights."""
    weights = zip(read_weights(first), read_weights(second), strict=True)
    return max(
        float(np.abs(read_curves(first) - read_curves(second)).max()),
        *(float(np.abs(a - b).max()) for a, b in weights),
    )


# ---------------------------------------------------------------------- several workers


@pytest.mark.slow
def test_two_workers_killed_and_started_again_take_the_course_of_one(
    alone: Path, workers: list[Path]
) -> None:
    assert len(read_curves(alone)) == 3
    for worker in workers:
        assert differ(alone, worker) < TOLERANCE


@pytest.mark.slow
def test_all_workers_get_the_same_model(workers: list[Path]) -> None:
    assert differ(*workers) == 0


def test_another_seed_is_another_course(alone: Path, tmp_path: Path) -> None:
    """The twin: what is not the same training is told apart by this tolerance."""
    train_here(tmp_path, {**COURSE, "seed": 2})
    assert differ(alone, tmp_path) > 100 * TOLERANCE


@pytest.mark.slow
def test_a_worker_that_has_finished_needs_no_other(alone: Path, workers: list[Path]) -> None:
    """Called again without any TF_CONFIG: the model is made from what the training left."""
    before = read_weights(workers[1])
    train_here(workers[1], {**COURSE, "distribute": "multi_worker"})
    for a, b in zip(before, read_weights(workers[1]), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.slow
def test_workers_with_different_recipes_refuse_to_begin(tmp_path: Path) -> None:
    scratches = [tmp_path / "0", tmp_path / "1"]
    options = {"distribute": "multi_worker", "epochs": 1}
    with run_workers(scratches, options, {**options, "seed": 2}) as processes:
        logs = [process.communicate(timeout=LIMIT)[1] for process in processes]
    assert [process.returncode for process in processes] == [2, 2]
    for log in logs:
        assert "DataError: the workers have different images, splits or train sections" in log


# -------------------------------------------------------------------- several devices


@pytest.fixture(scope="module")
def mirrored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three runs in one process with two logical CPUs: the course; with dropout and batch
    normalization, in one go; and the same broken off in the second epoch and resumed."""
    folder = tmp_path_factory.mktemp("mirrored")
    devices = {"distribute": "mirrored", "devices": 2}
    noisy = {**devices, "epochs": 2, "normalized": True, "dropout": 0.3, "micro_batches": 2}
    runs = {
        "plain": [{**COURSE, **devices}],
        "whole": [noisy],
        "parts": [{**noisy, "steps": 4 + 2}, noisy],
    }
    arguments = [
        text
        for name, several in runs.items()
        for options in several
        for text in (str(folder / name), json.dumps(options))
    ]
    with start(arguments, {}) as process:
        try:
            _, log = process.communicate(timeout=LIMIT)
        finally:
            process.kill()
    assert process.returncode == 0, log
    return folder


@pytest.mark.slow
def test_two_devices_take_the_course_of_one(alone: Path, mirrored: Path) -> None:
    assert differ(alone, mirrored / "plain") < TOLERANCE


@pytest.mark.slow
def test_what_each_replica_draws_and_counts_for_itself_is_resumed(mirrored: Path) -> None:
    """The state of dropout's generators, and the averages of batch normalization."""
    assert differ(mirrored / "whole", mirrored / "parts") < TOLERANCE


# ----------------------------------------------------------------------------- refusals


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The GPUs that TensorFlow finds: none, until a test puts some in."""
    found: list[str] = []
    monkeypatch.setattr(distribution, "_list_gpus", lambda: found)
    monkeypatch.delenv("TF_CONFIG", raising=False)
    return found


def two_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = {"worker": ["127.0.0.1:1111", "127.0.0.1:2222"]}
    document = {"cluster": cluster, "task": {"type": "worker", "index": 1}}
    monkeypatch.setenv("TF_CONFIG", json.dumps(document))


def test_mirrored_needs_a_gpu(gpus: list[str]) -> None:
    with pytest.raises(MissingRequirementError, match="mirrored, but TensorFlow finds no GPU"):
        check_distribution(TrainSection(distribute="mirrored"))


def test_a_batch_is_shared_equally_by_the_gpus(gpus: list[str]) -> None:
    gpus += ["0", "1", "2"]
    check_distribution(TrainSection(distribute="mirrored", batch_size=33))
    with pytest.raises(UsageError, match=r"batch_size is 32, .* multiple of 3: 3 replica"):
        check_distribution(TrainSection(distribute="mirrored", batch_size=32))


def test_a_share_is_cut_equally_into_micro_batches(gpus: list[str]) -> None:
    gpus += ["0", "1"]
    with pytest.raises(UsageError, match=r"multiple of 8: 2 replica\(s\) of 4 micro-batch"):
        check_distribution(TrainSection(distribute="mirrored", batch_size=12, micro_batches=4))


def test_a_batch_is_shared_equally_by_the_workers(
    gpus: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    two_workers(monkeypatch)
    check_distribution(TrainSection(distribute="multi_worker", batch_size=6))
    with pytest.raises(UsageError, match="multiple of 2"):
        check_distribution(TrainSection(distribute="multi_worker", batch_size=7))
    gpus += ["0", "1"]  # of each worker
    with pytest.raises(UsageError, match="multiple of 4"):
        check_distribution(TrainSection(distribute="multi_worker", batch_size=6))


def test_several_workers_need_a_cluster(gpus: list[str]) -> None:
    with pytest.raises(MissingRequirementError, match="TF_CONFIG is not set"):
        check_distribution(TrainSection(distribute="multi_worker"))


def test_alone_nothing_is_asked_for(gpus: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TF_CONFIG", "nonsense")
    check_distribution(TrainSection(batch_size=7))


# ---------------------------------------------------------------------------- workspaces


def shared_recipe(**train: Any) -> Recipe:
    return Recipe.model_validate(
        {
            "name": "shared",
            "data": {"source": "synthetic", "image_size": 32},
            "train": {"distribute": "multi_worker", **train},
        }
    )


def test_what_is_missing_is_said_before_any_work(gpus: list[str], store: Store) -> None:
    with pytest.raises(MissingRequirementError, match="TF_CONFIG is not set"):
        train_recipe(store, shared_recipe())
    assert not store.workspace.exists()


def test_run_leaves_several_workers_to_train(gpus: list[str], store: Store) -> None:
    with pytest.raises(UsageError, match="expected `lesiontk train` on every worker"):
        run_recipe(store, shared_recipe())
    assert not store.workspace.exists()


def test_each_worker_has_a_workspace_of_its_own(
    gpus: list[str], store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    two_workers(monkeypatch)
    used: list[Path] = []

    def note_workspace(plan: Any, step: str, mine: Store, *_: Any, **__: Any) -> None:
        used.append(mine.workspace)

    monkeypatch.setattr("lesiontk.workflow.train.build_step", note_workspace)
    train_recipe(store, shared_recipe())
    monkeypatch.setenv("TF_CONFIG", os.environ["TF_CONFIG"].replace('"index": 1', '"index": 0'))
    train_recipe(store, shared_recipe())
    assert used == [store.workspace / "workers" / "1", store.workspace]
