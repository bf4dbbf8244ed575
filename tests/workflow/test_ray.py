"""Steps as tasks of Ray: each once, several at the same time, and none lost with its process."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from lesiontk.errors import (
    DataError,
    GateFailedError,
    MissingRequirementError,
    StorageError,
    UsageError,
)
from lesiontk.records import Artefact
from lesiontk.search.result import list_front
from lesiontk.search.study import ATTEMPTS, RunningTrial
from lesiontk.search.trial_record import COMPLETE, FAILED, PRUNED
from lesiontk.stage import BuildObserver, StepId
from lesiontk.store import SharedStore, Store
from lesiontk.tracking import TrackedRun
from lesiontk.workflow import ray_cluster, search_trials
from lesiontk.workflow import run_recipes as run_recipes_module
from lesiontk.workflow.executor import Executor, WorkerOptions, open_executor
from lesiontk.workflow.ray_cluster import parse_address
from lesiontk.workflow.run_recipes import run_recipes
from lesiontk.workflow.runner import build_step, run_plan
from lesiontk.workflow.search import Search
from tests.workflow.ray_here import running_ray
from tests.workflow.stub_study import ENGINE, make_space, read_log, stub_plan, stub_search

MODEL = StepId("model")


@pytest.fixture(scope="module", autouse=True)
def ray_here() -> Iterator[None]:
    with running_ray():
        yield


@pytest.fixture
def two(store: Store) -> Iterator[Executor]:
    """Two workers."""
    with open_executor(store, WorkerOptions("ray", parallel=2)) as executor:
        yield executor


def run(search: Search, workers: int) -> None:
    with open_executor(search.store, WorkerOptions("ray", parallel=workers)) as executor:
        search.run(executor)


def count(log: Path, what: str = "end") -> Counter[str]:
    return Counter(line.stage for line in read_log(log) if line.what == what)


def describe(search: Search) -> list[Any]:
    trials = search.study.list_trials()
    return [(t.assignment, t.state, t.figures and t.figures.values) for t in trials]


def test_a_grid_has_the_same_front_with_one_and_two_workers(tmp_path: Path) -> None:
    space, found = make_space(trials=8), []
    for workers in (1, 2):
        log = tmp_path / f"{workers}.log"
        search = stub_search(Store(tmp_path / str(workers), threads=1), space, log=log)
        run(search, workers)
        assert count(log) == {
            "stub_train": 2, "stub_convert": 8, "stub_validate": 8, "stub_time": 8,
        }  # fmt: skip
        found.append((describe(search), list_front(search.study.list_trials(), search.criteria)))
    assert found[0] == found[1]
    here = stub_search(Store(tmp_path / "here", threads=1), space)
    here.run()
    assert describe(here) == found[0][0]


class Ended(BuildObserver):
    """Keeps what it is told of."""

    def __init__(self) -> None:
        self.connected, self.names, self.runs = False, list[str](), set[str]()

    def connect(self) -> None:
        self.connected = True

    def end(self, artefact: Artefact) -> None:
        assert self.connected
        self.names.append(artefact.name)

    def record(self, run: TrackedRun) -> None:
        self.runs.add(run.key)


def test_this_process_tracks_what_workers_make(tmp_path: Path) -> None:
    observer = Ended()
    search = stub_search(Store(tmp_path, threads=1, observer=observer), make_space(trials=4))
    run(search, 2)
    assert sorted(observer.names) == sorted(a.name for a in search.store.list_artefacts())
    assert len(observer.runs) == 1 + 4


def test_the_result_is_that_of_the_process_itself(
    store: Store, two: Executor, tmp_path: Path
) -> None:
    made = run_plan(stub_plan(1, 2, 0.0, ""), store, two)
    again = run_plan(stub_plan(1, 2, 0.0, ""), Store(tmp_path / "other", threads=1))
    assert {n: a.name for n, a in made.items()} == {n: a.name for n, a in again.items()}
    assert made[ENGINE].manifest.recipe["name"] == "stub"


def test_what_several_need_at_once_is_made_once(
    store: Store, two: Executor, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    plans = [stub_plan(7, own, 0.3, str(log)) for own in (1, 2)]
    two.run([lambda plan=plan: run_plan(plan, store, two) for plan in plans])
    assert count(log, "begin") == {
        "stub_train": 1, "stub_convert": 2, "stub_validate": 2, "stub_time": 2,
    }  # fmt: skip


def test_nothing_runs_beside_a_measurement(store: Store, two: Executor, tmp_path: Path) -> None:
    log = tmp_path / "log"
    search = stub_search(store, make_space(trials=8), seconds=0.1, log=log)
    search.run(two)
    busy: set[int] = set()
    for line in read_log(log):
        if line.what == "end":
            busy.remove(line.pid)
            continue
        if line.stage == "stub_time":
            assert not busy
        busy.add(line.pid)
    assert count(log)["stub_time"] == 8


def test_errors_are_those_of_the_stage(store: Store, two: Executor) -> None:
    plan = stub_plan(1, 1, 0.0, "", fails="verify")
    with pytest.raises(GateFailedError, match="does not match its model"):
        build_step(plan, ENGINE, store, {}, executor=two)
    with pytest.raises(Exception, match="ZeroDivisionError"):
        build_step(stub_plan(1, 1, 0.0, "", fails="bug"), ENGINE, store, {}, executor=two)


def test_a_step_whose_process_dies_is_tried_again(
    store: Store, two: Executor, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    log = tmp_path / "log"
    plan = stub_plan(1, 1, 0.0, str(log), fails="dies")
    with pytest.raises(DataError, match=f"{ATTEMPTS} processes ended in the step engine:tflite"):
        build_step(plan, ENGINE, store, {}, executor=two)
    assert count(log, "begin") == {"stub_train": 1, "stub_convert": ATTEMPTS}
    assert caplog.text.count("a worker ended") == ATTEMPTS


@pytest.mark.slow
def test_a_study_survives_ten_kills(store: Store, tmp_path: Path) -> None:
    """Each kill meets another step, which is then made by another process."""
    log = tmp_path / "log"
    search = stub_search(store, make_space(trials=12), seconds=0.2, log=log)
    killed: set[tuple[str, int]] = set()
    ended = threading.Event()

    def kill() -> None:
        while len(killed) < 10 and not ended.wait(0.05):
            last = {line.pid: line for line in read_log(log)}
            for pid, line in last.items():
                step = (line.stage, line.value)
                if line.what == "begin" and step not in killed and line.stage != "stub_time":
                    with suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                        killed.add(step)
                    break

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        run(search, 2)
    finally:
        ended.set()
        killer.join()
    trials = search.study.list_trials()
    assert len(killed) == 10
    assert [trial.number for trial in trials] == list(range(12))
    assert {trial.state for trial in trials} == {COMPLETE}
    assert len({str(trial.assignment) for trial in trials}) == 12


def test_a_candidate_without_an_engine_does_not_end_the_search(store: Store, two: Executor) -> None:
    search = stub_search(store, make_space(trials=4), fails={1: "verify", 2: "dies"})
    search.run(two)
    trials = search.study.list_trials()
    assert [t.state for t in trials] == [FAILED, FAILED, COMPLETE, COMPLETE]
    assert [t.reason.partition(",")[0] for t in trials[:2]] == [
        "it does not match its model.", "3 processes ended in the step engine:tflite:int8",
    ]  # fmt: skip


def test_a_full_disk_ends_the_search_and_its_trial_is_continued(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    search = stub_search(store, make_space(trials=2))

    def fill(*_: object, **__: object) -> None:
        raise StorageError("the disk is full")

    for _ in range(ATTEMPTS + 1):
        with monkeypatch.context() as patch:
            patch.setattr(search_trials, "build_step", fill)
            with pytest.raises(StorageError):
                search.run()
    assert [trial.state for trial in search.study.list_trials()].count(FAILED) == 0
    search.run()
    assert [trial.state for trial in search.study.list_trials()] == [COMPLETE, COMPLETE]


def test_a_training_that_falls_behind_is_ended(
    store: Store, two: Executor, monkeypatch: pytest.MonkeyPatch
) -> None:
    space = make_space(
        vary={"train.seed": [1, 2]}, objectives=["balanced_accuracy"], pruner="hyperband"
    )
    reports: dict[int, list[int]] = {0: [], 1: []}

    def behind(self: RunningTrial, epoch: int, value: float) -> bool:
        assert value == self.assignment["train.seed"] / 10
        reports[self.number].append(epoch)
        return self.number == 0

    monkeypatch.setattr(RunningTrial, "report", behind)
    search = stub_search(store, space)
    search.run(two)
    first, second = search.study.list_trials()
    assert (first.state, second.state) == (PRUNED, COMPLETE)
    assert first.reason == "its training fell behind: balanced_accuracy 0.100 after epoch 1"
    assert reports == {0: [1], 1: [1, 2, 3]}


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Ctrl-C is as in a terminal; workers of pytest-xdist ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_an_interrupt_ends_cleanly_and_the_search_goes_on_without_ray(
    store: Store, tmp_path: Path, interruptible: None
) -> None:
    log = tmp_path / "log"
    search = stub_search(store, make_space(trials=4), seconds=1.0, log=log)

    def interrupt() -> None:
        while not read_log(log):
            time.sleep(0.05)
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        run(search, 2)
    thread.join()
    assert not list(store.workspace.glob(".*.tmp"))
    assert not store.failures()
    before = [dict(t.user_attrs) for t in search.study._study.get_trials()]
    assert all(not each.get("attempts") for each in before)
    again = stub_search(store, make_space(trials=4))
    again.run()
    assert [t.state for t in again.study.list_trials()] == [COMPLETE] * 4


def test_a_bug_ends_the_search(store: Store, two: Executor) -> None:
    search = stub_search(store, make_space(trials=4), fails={1: "bug"})
    with pytest.raises(Exception, match="ZeroDivisionError"):
        search.run(two)


def test_recipes_run_at_once_and_one_that_fails_does_not_end_the_others(
    store: Store, two: Executor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tmp_path / "log"
    plans = [
        [stub_plan(3, own, 0.2, str(log), fails=fails)]
        for own, fails in ((1, ""), (2, "verify"), (3, ""))
    ]
    monkeypatch.setattr(run_recipes_module, "plan_recipes", lambda *_: plans)
    recipes = [plan.recipe.model_copy(update={"name": name})
               for name, (plan,) in zip("abc", plans, strict=True)]  # fmt: skip
    runs = run_recipes(store, recipes, two)
    assert [str(run.error or "") for run in runs] == ["", "it does not match its model.", ""]
    assert [bool(run.artefacts) for run in runs] == [True, False, True]
    assert count(log, "begin")["stub_train"] == 1


# ------------------------------------------------------------- refused before any work


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"workers": "rai"}, "expected local or ray. Did you mean 'ray'"),
        ({"address": "host:6379"}, "expected --workers ray with it"),
        ({"parallel": 2}, "expected --workers ray with it"),
        ({"workers": "ray", "parallel": 0}, "expected 1 or more"),
    ],
)
def test_bad_options(given: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        WorkerOptions(**given)


@pytest.mark.parametrize("address", ["host", "ray://host:10001", "host:0", ":6379", "host:6379x"])
def test_bad_addresses(address: str) -> None:
    with pytest.raises(UsageError, match="expected HOST:PORT"):
        parse_address(address)


def test_an_address_where_nothing_listens(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_cluster.import_ray(), "is_initialized", lambda: False)
    with (
        pytest.raises(MissingRequirementError, match=r"no cluster of Ray answers at 127.0.0.1:9"),
        open_executor(store, WorkerOptions("ray", "127.0.0.1:9")),
    ):
        pass
    assert not store.workspace.exists()


@pytest.mark.parametrize("answer", [b"HTTP/1.1 400 Bad Request", b""])
def test_an_address_of_another_program(
    store: Store, monkeypatch: pytest.MonkeyPatch, answer: bytes
) -> None:
    monkeypatch.setattr(ray_cluster.import_ray(), "is_initialized", lambda: False)
    monkeypatch.setattr(ray_cluster, "SECONDS", 0.5)  # of one that does not answer
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(100)
                connection.sendall(answer)
                ended.wait(5)

        ended = threading.Event()
        thread = threading.Thread(target=serve)
        thread.start()
        options = WorkerOptions("ray", f"127.0.0.1:{server.getsockname()[1]}")
        with (
            pytest.raises(MissingRequirementError, match="no cluster of Ray answers at"),
            open_executor(store, options),
        ):
            pass
        ended.set()
        thread.join()


def test_a_wrong_shared_store_is_an_error_before_ray_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_cluster, "connect", lambda *_: pytest.fail("Ray was started"))
    store = Store(tmp_path / "workspace", shared=SharedStore((tmp_path / "none").as_uri()))
    with (
        pytest.raises(MissingRequirementError, match="does not exist; expected an existing one"),
        open_executor(store, WorkerOptions("ray")),
    ):
        pass


def test_ray_that_is_not_installed(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    with (
        pytest.raises(MissingRequirementError, match=r"pip install 'lesiontk\[ray\]'"),
        open_executor(store, WorkerOptions("ray")),
    ):
        pass


def test_another_cluster_than_the_current_one_is_refused(store: Store) -> None:
    with (
        pytest.raises(UsageError, match="expected the same address"),
        open_executor(store, WorkerOptions("ray", "127.0.0.1:9")),
    ):
        pass
