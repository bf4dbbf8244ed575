"""No trial is lost and none is counted twice, whatever happens to the processes that run them."""

from __future__ import annotations

import signal
import sqlite3
import sys
import time
import traceback
from contextlib import closing
from pathlib import Path

import pytest

from lesiontk.errors import DataError, MissingRequirementError, UsageError
from lesiontk.search import database as database_module
from lesiontk.search import study as study_module
from lesiontk.search.criteria import Criteria
from lesiontk.search.database import GONE, reaching_database
from lesiontk.search.study import RunningTrial, open_study, recall_study
from lesiontk.search.trial_record import COMPLETE, FAILED, INFEASIBLE, PRUNED, RUNNING, WAITING
from tests.search.made_up_study import figures, finish_twice, make_study
from tests.search.study_process import LABELS, SPACE, StudyProcess, made_up, run, study_of

TRIALS = 3


def test_a_study_that_is_killed_again_and_again_ends_like_an_undisturbed_one(
    tmp_path: Path,
) -> None:
    """Killed before its first write, in the middle of a trial, and before the last one of it."""
    for folder in ("whole", "killed"):
        (tmp_path / folder).mkdir()
    run(tmp_path / "whole", TRIALS)
    study_of(tmp_path / "killed")
    for call in (0, 1, 3, 5, 8):
        code = StudyProcess(tmp_path / "killed", TRIALS, killed_at=call).wait()[0]
        assert code == -signal.SIGKILL
    assert run(tmp_path / "killed", TRIALS)
    whole = study_of(tmp_path / "whole").list_trials()
    after = study_of(tmp_path / "killed").list_trials()
    assert [trial.number for trial in after] == list(range(TRIALS))
    assert [(t.assignment, t.figures, t.state) for t in after] == [
        (t.assignment, t.figures, t.state) for t in whole
    ]


def test_two_processes_share_the_trials(tmp_path: Path) -> None:
    study_of(tmp_path)
    both = [StudyProcess(tmp_path, 8) for _ in range(2)]
    numbers = [int(line) for process in both for line in process.wait()[1].split()]
    assert sorted(numbers) == list(range(8))
    assert len(study_of(tmp_path).list_trials()) == 8


def test_a_trial_that_another_process_runs_is_not_taken(tmp_path: Path) -> None:
    first = study_of(tmp_path).next_trial(2)
    second = study_of(tmp_path).next_trial(2)
    assert first is not None
    assert second is not None
    assert (first.number, second.number) == (0, 1)
    assert study_of(tmp_path).next_trial(2) is None
    first.close()
    again = study_of(tmp_path).next_trial(2)
    assert again is not None
    assert (again.number, again.assignment) == (0, first.assignment)


def test_a_trial_of_another_machine_is_left_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(study_module, "name_host", lambda _: "elsewhere")
        trial = study_of(tmp_path).next_trial(1)
        assert trial is not None
        trial.close()
    assert study_of(tmp_path).next_trial(1) is None
    (left,) = study_of(tmp_path).list_trials()
    assert (left.state, left.host) == (RUNNING, "elsewhere")


def test_a_trial_of_a_machine_that_is_gone_is_continued_and_counts_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(study_module, "name_host", lambda _: "elsewhere")
        gone = study_of(tmp_path).next_trial(1)
    assert gone is not None
    gone.close()
    with closing(sqlite3.connect(tmp_path / "study.db")) as database, database:
        database.execute(
            "UPDATE trial_heartbeats SET heartbeat = datetime('now', ?)", [f"-{GONE + 1} seconds"]
        )
    finish_twice(gone, study_of(tmp_path))
    assert "trial 0 was finished by another machine" in caplog.text


def test_a_running_trial_gives_signs_of_life(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database_module, "HEARTBEAT", 1)
    query = "SELECT max(heartbeat) > '2001' FROM trial_heartbeats"
    with closing(sqlite3.connect(tmp_path / "study.db", timeout=60)) as database:
        trial = study_of(tmp_path).next_trial(1)
        assert trial is not None
        with trial:
            with database:
                database.execute("UPDATE trial_heartbeats SET heartbeat = '2000-01-01 00:00:00'")
            limit = time.monotonic() + 60
            while not database.execute(query).fetchone()[0]:
                assert time.monotonic() < limit
                time.sleep(0.1)


def test_more_trials_continue_a_finished_study(tmp_path: Path) -> None:
    assert run(tmp_path, 2) == [0, 1]
    assert run(tmp_path, 2) == []
    assert run(tmp_path, 3) == [2]


def test_states_say_what_became_of_a_trial(tmp_path: Path) -> None:
    study = make_study(tmp_path, constraints=["size_mb <= 2"], sampler="random", seed=4,
                       vary={"train.learning_rate": {"low": 0.1, "high": 0.2}})  # fmt: skip
    trials = [study.next_trial(4) for _ in range(4)]
    good, large, failed, pruned = (trial for trial in trials if trial is not None)
    good.complete(figures())
    large.complete(figures(size_mb=2.5))
    failed.reject("the training diverged")
    pruned.prune("it fell behind")
    found = study.list_trials()
    assert [trial.state for trial in found] == [COMPLETE, INFEASIBLE, FAILED, PRUNED]
    assert [v.measured for v in found[1].violations] == [2.5]
    assert [trial.reason for trial in found[2:]] == ["the training diverged", "it fell behind"]
    assert all(trial.is_finished for trial in found)


def test_an_undefined_criterion_is_an_error_and_leaves_the_trial_to_be_continued(
    tmp_path: Path,
) -> None:
    study = make_study(tmp_path, objectives=["recall[mel]"])
    trial = study.next_trial(1)
    assert trial is not None
    with pytest.raises(DataError, match=r"recall\[mel\] is undefined on the 20 validation images"):
        trial.complete(figures())
    trial.close()
    assert [left.state for left in study.list_trials()] == [RUNNING]


def test_a_step_in_which_process_after_process_ends_fails_its_trial(tmp_path: Path) -> None:
    def take() -> RunningTrial:
        trial = make_study(tmp_path).next_trial(1)
        assert trial is not None
        assert trial.number == 0
        return trial

    for error in [MemoryError] * 2 + [KeyboardInterrupt] * 3 + [MemoryError]:
        trial = take()
        with trial.attempt("images"):
            pass
        with pytest.raises(error), trial.attempt("engine"):
            raise error
        trial.close()
    again = take()
    with again.attempt("images"):
        pass
    with (
        pytest.raises(DataError, match="3 processes ended in the step engine"),
        again.attempt("engine"),
    ):
        pass


@pytest.mark.parametrize("sampler", ["random", "tpe", "nsga2"])
def test_each_candidate_of_a_finite_space_is_tried_once(tmp_path: Path, sampler: str) -> None:
    vary = {
        "calibration.observer": ["min_max", "percentile"],
        "compress": [[], [{"prune": {}}]],
        "compress.prune.keep_macs": [0.4, 0.5, 0.6],
    }
    study, tried = make_study(tmp_path, sampler=sampler, trials=50, vary=vary), []
    while (trial := study.next_trial(50)) is not None:
        tried.append(trial.assignment)
        trial.complete(figures(size_mb=float(len(tried))))
    assert len(tried) == study.space.size == 8
    assert all(candidate in tried for candidate in study.space.list_assignments())
    assert [trial.assignment for trial in study.list_trials()] == tried


def test_what_a_sampler_insists_on_is_not_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(study_module, "DRAWS", 0)
    study, tried = make_study(tmp_path, trials=2), []
    while (trial := study.next_trial(2)) is not None:
        tried.append(trial.assignment["calibration.observer"])
        trial.complete(figures())
    assert sorted(tried) == ["min_max", "percentile"]


def test_a_grid_has_each_candidate_once(tmp_path: Path) -> None:
    vary = {
        "calibration.observer": ["min_max", "percentile"],
        "quantize.correct_bias": [True, False],
        "compress": [[], [{"prune": {"keep_macs": 0.5}}]],
    }
    study, tried = make_study(tmp_path, sampler="grid", vary=vary), []
    study.enqueue_grid(50)
    study.enqueue_grid(50)
    while (trial := study.next_trial(50)) is not None:
        tried.append(trial.assignment)
        trial.complete(figures())
    assert tried == list(study.space.list_assignments())


def test_fewer_trials_of_an_interrupted_grid_are_enough(tmp_path: Path) -> None:
    """Its other candidates wait, and none of them is skipped when they are wanted again."""
    vary = {"calibration.observer": ["min_max", "percentile"], "quantize.correct_bias": [True]}
    study = make_study(tmp_path, sampler="grid", vary=vary)
    study.enqueue_grid(50)
    first = study.next_trial(50)
    assert first is not None
    assert study.is_running
    first.complete(figures())
    assert study.next_trial(1) is None
    assert not study.is_running
    assert [trial.state for trial in study.list_trials()] == [COMPLETE, WAITING]
    second = study.next_trial(50)
    assert second is not None
    second.close()


def test_the_sampler_prefers_what_meets_the_constraints(tmp_path: Path) -> None:
    """Of 300 numbers only those above 250 do; a sampler that ignored them would find one in six."""
    study = make_study(
        tmp_path, trials=25, objectives=["balanced_accuracy"],
        constraints=["size_mb <= 5"], vary={"train.patience": {"low": 1, "high": 300}},
    )  # fmt: skip
    found = []
    while (trial := study.next_trial(25)) is not None:
        number = trial.assignment["train.patience"]
        found.append(number > 250)
        trial.complete(figures(size_mb=(301 - number) / 10, balanced_accuracy=0.7))
    assert sum(found[-10:]) >= 4


def test_hyperband_ends_trainings_that_fall_behind(tmp_path: Path) -> None:
    study = make_study(tmp_path, pruner="hyperband", sampler="random", trials=20,
                       vary={"train.learning_rate": {"low": 0.0, "high": 1.0}})  # fmt: skip
    ended = {}
    while (trial := study.next_trial(20)) is not None:
        rate = trial.assignment["train.learning_rate"]
        for epoch in range(1, 10):
            if trial.report(epoch, rate * epoch / 9):
                trial.prune("behind")
                ended[rate] = epoch
                break
        else:
            trial.complete(figures(balanced_accuracy=rate))
    assert ended
    assert (
        max(trial.assignment["train.learning_rate"] for trial in study.list_trials()) not in ended
    )


@pytest.mark.parametrize("objectives", [["balanced_accuracy", "p90_ms"], ["size_mb"]])
def test_hyperband_needs_one_objective_of_training(tmp_path: Path, objectives: list[str]) -> None:
    with pytest.raises(UsageError, match=r"expected one of balanced_accuracy.* alone"):
        make_study(tmp_path, pruner="hyperband", objectives=objectives)
    assert not (tmp_path / "study.db").exists()


def test_another_space_under_the_same_name_is_refused(tmp_path: Path) -> None:
    make_study(tmp_path)
    make_study(tmp_path, trials=99)
    with pytest.raises(UsageError, match=r"another space \(seed differ\)"):
        make_study(tmp_path, seed=5)


def test_a_search_of_the_name_in_another_database_is_waited_for(tmp_path: Path) -> None:
    running = make_study(tmp_path).next_trial(9)
    assert running is not None
    (tmp_path / "study.db").rename(tmp_path / "other.db")
    study = make_study(tmp_path)
    with pytest.raises(UsageError, match="another search 'made-up' runs in this workspace"):
        study.next_trial(9)
    running.close()
    again = study.next_trial(9)
    assert again is not None
    assert again.number == 0
    again.close()


def test_what_all_trials_share_is_recorded_once(tmp_path: Path) -> None:
    study = make_study(tmp_path)
    study.agree("split", "abc", "split of the images")
    study.agree("split", "abc", "split of the images")
    with pytest.raises(UsageError, match="with another split of the images"):
        study.agree("split", "def", "split of the images")
    assert make_study(tmp_path).recall("split") == "abc"


@pytest.mark.parametrize(
    ("url", "error", "message"),
    [
        ("nonsense", UsageError, "expected one such as postgresql"),
        ("sqlite:////nowhere/at/all.db", MissingRequirementError, "cannot be reached"),
        ("postgresql://me:secret@localhost:1/db", MissingRequirementError, "postgresql://me:"),
        ("mysql://me:secret@localhost:1/db", MissingRequirementError, "mysql://me:.*refused"),
        ("mariadb://localhost:1/db?password=secret", MissingRequirementError, "cannot be reached"),
        ("mysql://me:secret@localhost:1", UsageError, "names no database; expected one such as"),
        ("mysql://me:the@secret@host/db", UsageError, "%40 for an @ in a password"),
        ("mysql://me:the@secret:word@host/db", UsageError, "%3A for a :"),
        ("postgres://me:secret@host/db", UsageError, "kind postgres; .* mean 'postgresql'"),
        ("mysql://me:secret@host/db?colour=secret", UsageError, "the options colour of the"),
    ],
)
def test_a_database_that_cannot_be_reached_is_an_error_without_its_password(
    tmp_path: Path, url: str, error: type[Exception], message: str
) -> None:
    criteria = Criteria.parse(SPACE.objectives, (), "pair", LABELS, LABELS[:1])
    with pytest.raises(error, match=message) as caught:
        open_study(url, "made-up", SPACE, criteria, tmp_path / "locks", epochs=1)
    assert "secret" not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize(
    ("url", "package", "remedy"),
    [
        ("postgresql://host/db", "psycopg", r"pip install 'lesiontk\[postgresql\]'\.$"),
        ("mysql://host/db", "pymysql", r"pip install 'lesiontk\[mysql\]'\.$"),
        ("mysql+mysqldb://host/db", "MySQLdb", r"pip install its package\.$"),
    ],
)
def test_a_driver_that_is_missing_is_an_error_with_its_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str, package: str, remedy: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingRequirementError, match=remedy):
        study_of(tmp_path, url)


def test_a_database_that_fails_during_the_search_is_an_error_without_its_password(
    tmp_path: Path,
) -> None:
    study = make_study(tmp_path, trials=2)
    trial = study.next_trial(2)
    assert trial is not None
    with closing(sqlite3.connect(next(tmp_path.rglob("*.db")))) as database:
        database.execute("DROP TABLE trial_user_attributes")
    expected = r"database postgresql://me:\*\*\*@host/x failed during the search: .*no such table"
    with (
        pytest.raises(MissingRequirementError, match=expected),
        reaching_database("postgresql://me:secret@host/x"),
    ):
        trial.reject("no engine")
    with pytest.raises(KeyError), reaching_database("postgresql://me:secret@host/x"):
        raise KeyError("a bug stays one")


def test_an_unknown_search_is_an_error_with_the_known_ones(tmp_path: Path) -> None:
    make_study(tmp_path)
    with pytest.raises(UsageError, match=r"no search 'other' in this database; it has made-up"):
        recall_study(f"sqlite:///{tmp_path / 'study.db'}", "other")


def test_the_importance_of_a_key_is_its_share_of_the_variance(tmp_path: Path) -> None:
    study = study_of(tmp_path)
    assert study.measure_importance() == {}
    while (trial := study.next_trial(8)) is not None:
        chosen = {
            **trial.assignment,
            "compress.prune.keep_macs": trial.assignment["train.learning_rate"],
        }
        trial.complete(made_up(chosen, trial.number))
    shares = study.measure_importance()["balanced_accuracy"]
    assert shares["train.learning_rate"] > 0.8
    assert sum(shares.values()) == pytest.approx(1)
