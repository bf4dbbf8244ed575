"""Trials in a real database server, which processes of several workspaces share."""

from __future__ import annotations

import gc
import logging
import signal
import time
import traceback
import warnings
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from lesiontk.errors import MESSAGE, DataError, MissingRequirementError, UsageError
from lesiontk.search import database as database_module
from lesiontk.search import study as study_module
from lesiontk.search.database import open_storage, reaching_database
from lesiontk.search.study import Study
from tests.search.database_servers import PASSWORD, QUOTED, SERVERS, DatabaseServer
from tests.search.made_up_study import figures, finish_twice
from tests.search.study_process import StudyProcess, run, study_of

TRIALS = 8
LONG_AGO = "UPDATE trial_heartbeats SET heartbeat = '2000-01-01 00:00:00'"


@pytest.fixture(scope="module", params=SERVERS)
def server(request: pytest.FixtureRequest) -> Iterator[DatabaseServer]:
    """Each server that is installed."""
    with SERVERS[request.param].running() as server:
        yield server


@pytest.fixture
def url(server: DatabaseServer) -> str:
    """The URL of a new database."""
    return server.create_database()


def study_elsewhere(folder: Path, url: str, monkeypatch: pytest.MonkeyPatch) -> Study:
    """Return the study as another machine has it."""
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(study_module, "name_host", lambda _: "elsewhere")
        return study_of(folder, url)


def explain_failure(study: Study, url: str) -> str:
    """Return the error of a study whose server does not run."""
    with pytest.raises(MissingRequirementError) as caught, reaching_database(url):
        study.list_trials()
    return str(caught.value)


def test_workspaces_share_the_trials_also_after_kills(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed at four calls of the database, beside another workspace on this machine."""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    study_of(tmp_path / "one", url)
    beside = StudyProcess(tmp_path / "two", TRIALS, url=url)
    for call in (0, 4, 9, 14):
        code = StudyProcess(tmp_path / "one", TRIALS, killed_at=call, url=url).wait()[0]
        if code == 0:
            break
        assert code == -signal.SIGKILL
    assert beside.wait()[2] == ""
    monkeypatch.setattr(study_module, "NEWBORN", timedelta(0))  # of trials killed in their birth
    run(tmp_path / "one", TRIALS, url)
    found = study_of(tmp_path / "one", url).list_trials()
    assert [trial.number for trial in found] == list(range(TRIALS))
    assert all(trial.figures is not None for trial in found)
    assert len({trial.host for trial in found}) == 2


def test_processes_that_begin_a_search_at_once_have_one_study(url: str, tmp_path: Path) -> None:
    """In a database without tables, which one of them makes."""
    folders = [tmp_path / str(number) for number in range(3)]
    for folder in folders:
        folder.mkdir()
    begun = [StudyProcess(folder, TRIALS, url=url) for folder in folders]
    outcomes = [process.wait() for process in begun]
    assert [errors for _, _, errors in outcomes] == [""] * 3
    numbers = [int(line) for _, output, _ in outcomes for line in output.split()]
    assert sorted(numbers) == list(range(TRIALS))


def test_trials_have_the_values_that_a_file_gives_them(url: str, tmp_path: Path) -> None:
    """Also those that the sampler derives from the values and figures of earlier trials."""
    for name in ("file", "server"):
        (tmp_path / name).mkdir()
    run(tmp_path / "file", 14)
    run(tmp_path / "server", 14, url)
    here = study_of(tmp_path / "file").list_trials()
    there = study_of(tmp_path / "server", url).list_trials()
    assert [(trial.assignment, trial.figures, trial.violations) for trial in there] == [
        (trial.assignment, trial.figures, trial.violations) for trial in here
    ]
    assert all(trial.seconds is not None for trial in there)


def test_a_machine_that_is_gone_is_replaced_and_its_trial_counts_once(
    server: DatabaseServer,
    url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    for name in ("gone", "here"):
        (tmp_path / name).mkdir()
    gone = study_elsewhere(tmp_path / "gone", url, monkeypatch).next_trial(1)
    assert gone is not None
    here = study_of(tmp_path / "here", url)
    assert here.next_trial(1) is None
    server.execute(LONG_AGO, url)
    finish_twice(gone, here)
    assert "trial 0 was finished by another machine" in caplog.text


def test_a_running_trial_gives_signs_of_life(
    server: DatabaseServer, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database_module, "HEARTBEAT", 1)
    trial = study_of(tmp_path, url).next_trial(1)
    assert trial is not None
    with trial:
        server.execute(LONG_AGO, url)
        limit = time.monotonic() + 60
        while server.execute("SELECT max(heartbeat) FROM trial_heartbeats", url) < "2001":
            assert time.monotonic() < limit
            time.sleep(0.1)


def test_machines_in_different_time_zones_leave_each_other_their_trials(
    server: DatabaseServer, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where one has daylight saving time already."""
    for name in ("there", "here"):
        (tmp_path / name).mkdir()
    running = study_elsewhere(tmp_path / "there", url, monkeypatch).next_trial(1)
    assert running is not None
    with running:
        server.execute(server.far_time_zone)
        assert study_of(tmp_path / "here", url).next_trial(1) is None
        running.complete(figures())


def test_two_machines_that_run_one_trial_do_not_disturb_each_other(
    server: DatabaseServer, url: str, tmp_path: Path
) -> None:
    """One of them reads the trial, the other one writes to it, and the first writes, too."""
    trial = study_of(tmp_path, url).next_trial(1)
    assert trial is not None
    number = int(server.execute("SELECT trial_id FROM trials", url))
    first, second = open_storage(url), open_storage(url)
    server.execute(LONG_AGO, url)
    with trial, first.engine.connect() as between:
        between.exec_driver_sql("SELECT * FROM trial_heartbeats").all()
        second.record_heartbeat(number)
        between.exec_driver_sql(LONG_AGO)
        between.commit()
        trial.complete(figures())


def test_a_server_may_restart_during_a_training(
    server: DatabaseServer, url: str, tmp_path: Path
) -> None:
    study = study_of(tmp_path, url)
    trial = study.next_trial(1)
    assert trial is not None
    server.stop()
    server.start()
    with trial:
        trial.complete(figures())
    assert [trial.figures for trial in study.list_trials()] == [figures()]


def test_a_server_that_ends_is_an_error_without_its_password(
    server: DatabaseServer, url: str, tmp_path: Path
) -> None:
    study = study_of(tmp_path, url)
    server.stop()
    with warnings.catch_warnings():
        # PyMySQL leaves the socket of a refused connection to the garbage collector
        warnings.simplefilter("ignore", ResourceWarning)
        said = explain_failure(study, url)
        gc.collect()
    server.start()
    assert "failed during the search" in said
    assert PASSWORD not in said
    assert study.list_trials() == ()


def test_the_longest_reason_is_recorded(url: str, tmp_path: Path) -> None:
    study = study_of(tmp_path, url)
    trial = study.next_trial(1)
    assert trial is not None
    reason = str(DataError("\N{STETHOSCOPE}" * 2 * MESSAGE))
    trial.reject(reason)
    assert study.list_trials()[0].reason == reason


def test_a_value_is_recorded_as_it_is_or_is_an_error(url: str, tmp_path: Path) -> None:
    study, value, refused = study_of(tmp_path, url), "x" * 2**16, ""
    try:
        with reaching_database(url):
            study.remember("value", value)
    except MissingRequirementError as error:
        refused = str(error)
    assert "Data too long" in refused or not refused
    assert study.recall("value") == (None if refused else value)


@pytest.mark.parametrize(
    ("right", "wrong", "error", "reason"),
    [
        (QUOTED, "wr0ng", MissingRequirementError, "authentication failed|Access denied"),
        ("/search", "/unknown", MissingRequirementError, "does not exist|Unknown database"),
        ("?", "?password=wr0ng&", MissingRequirementError, "authentication failed|Access denied"),
        ("?", "?colour=wr0ng&", (MissingRequirementError, UsageError), "colour"),
    ],
)
def test_a_database_that_refuses_is_an_error_without_the_password(
    url: str,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    right: str,
    wrong: str,
    error: type[Exception],
    reason: str,
) -> None:
    caplog.set_level(logging.DEBUG)
    with pytest.raises(error, match=reason) as caught:
        study_of(tmp_path, url.replace(right, wrong))
    said = "".join([*traceback.format_exception(caught.value), caplog.text])
    assert not [secret for secret in (PASSWORD, QUOTED, "wr0ng") if secret in said]
