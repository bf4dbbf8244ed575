"""What MLflow has of a run: once, whole, and nothing else."""

from __future__ import annotations

import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from lesiontk.errors import MissingRequirementError, UsageError
from lesiontk.tracking import State, TrackedRun
from lesiontk.tracking.mlflow_tracker import MlflowTracker, name_of
from tests.tracking.conftest import Place

RUN = TrackedRun(
    key="a" * 64,
    name="tiny train model-aaaaaaaaaaaa",
    state=State.FINISHED,
    params={"train.epochs": "2", "model.architecture": "cnn"},
    metrics={"model/balanced_accuracy": 0.7, "model/recall[mel]": 0.5},
    tags={"lesiontk.kind": "model"},
    epochs={1: {"training/loss": 1.5}, 2: {"training/loss": 1.25}},
    started=1000.0,
    ended=1060.0,
)


def test_a_run_has_parameters_metrics_tags_epochs_and_times(
    place: Place, capfd: pytest.CaptureFixture[str]
) -> None:
    MlflowTracker(place.workspace).write(RUN)
    assert capfd.readouterr() == ("", "")  # --json is alone on standard output
    (found,) = place.runs(key=RUN.key)
    assert found.info.run_name == RUN.name
    assert found.info.status == "FINISHED"
    assert (found.info.start_time, found.info.end_time) == (1_000_000, 1_060_000)
    assert found.data.params == RUN.params
    assert found.data.metrics["model/balanced_accuracy"] == 0.7
    assert found.data.metrics["model/recall_mel"] == 0.5
    assert found.data.tags["lesiontk.kind"] == "model"
    assert place.history(found, "training/loss") == [(1, 1.5), (2, 1.25)]
    assert place.client.list_artifacts(found.info.run_id) == []


def test_the_same_run_again_changes_nothing(place: Place) -> None:
    tracker = MlflowTracker(place.workspace)
    tracker.write(RUN)
    (before,) = place.runs(key=RUN.key)
    for each in (tracker, MlflowTracker(place.workspace)):
        each.write(RUN)
    (after,) = place.runs(key=RUN.key)
    assert after.to_dictionary() == before.to_dictionary()
    for metric in before.data.metrics:
        assert len(place.history(after, metric)) == (2 if metric == "training/loss" else 1)


def test_another_process_continues_a_run_without_repeating_an_epoch(place: Place) -> None:
    begun = replace(RUN, state=State.RUNNING, metrics={}, epochs={})
    first = MlflowTracker(place.workspace)
    first.write(begun)
    first.write(replace(begun, epochs={1: RUN.epochs[1]}))
    (found,) = place.runs(key=RUN.key)
    assert found.info.status == "RUNNING"
    assert place.history(found, "training/loss") == [(1, 1.5)]
    second = MlflowTracker(place.workspace)
    second.write(begun)
    second.write(RUN)
    (found,) = place.runs(key=RUN.key)
    assert found.info.status == "FINISHED"
    assert place.history(found, "training/loss") == [(1, 1.5), (2, 1.25)]


@pytest.mark.parametrize(("state", "status"), [(State.FAILED, "FAILED"), (State.STOPPED, "KILLED")])
def test_a_run_that_ended_early_can_go_on(state: State, status: str, place: Place) -> None:
    tracker = MlflowTracker(place.workspace)
    tracker.write(replace(RUN, state=state, metrics={}))
    assert place.runs(key=RUN.key)[0].info.status == status
    tracker.write(replace(RUN, state=State.RUNNING))
    assert place.runs(key=RUN.key)[0].info.status == "RUNNING"
    tracker.write(RUN)
    assert place.runs(key=RUN.key)[0].info.status == "FINISHED"


def test_a_metric_and_a_tag_are_replaced(place: Place) -> None:
    tracker = MlflowTracker(place.workspace)
    tracker.write(replace(RUN, metrics={"trials/complete": 3}, tags={"lesiontk.recipe": "old"}))
    tracker.write(replace(RUN, metrics={"trials/complete": 5}, tags={"lesiontk.recipe": "new"}))
    (found,) = place.runs(key=RUN.key)
    assert found.data.metrics["trials/complete"] == 5
    assert found.data.tags["lesiontk.recipe"] == "new"


def test_runs_are_nested_and_may_be_long(place: Place) -> None:
    """A request of MLflow takes a hundred parameters; a name has 250 characters."""
    tracker = MlflowTracker(place.workspace)
    tracker.write(replace(RUN, key="b" * 64))
    many = {f"{'long' * 80}{n}"[-260:]: "x" * 7000 for n in range(150)}
    child = replace(
        RUN, parent="b" * 64, params=many, metrics={f"figure/{n}": n / 7 for n in range(1200)}
    )
    tracker.write(child)
    MlflowTracker(place.workspace).write(child)
    (parent,), (found,) = place.runs(key="b" * 64), place.runs(key=RUN.key)
    assert found.data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert len([name for name in found.data.metrics if name.startswith("figure/")]) == 1200
    assert found.data.metrics["figure/8"] == 8 / 7
    assert {len(value) for value in found.data.params.values()} == {6000}


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("recall[mel]", "recall_mel"),
        ("tflite:int8@trained/p90_ms", "tflite:int8_trained/p90_ms"),
        ("verification/biases saturated at a limit of int32",) * 2,
        ("difference/größe", "difference/größe"),
    ],
)
def test_names_are_those_that_mlflow_takes(text: str, name: str, place: Place) -> None:
    MlflowTracker(place.workspace).write(
        replace(RUN, metrics={text: 1}, params={text: "1"}, tags={text: "1"})
    )
    assert name_of(text) == name
    (found,) = place.runs(key=RUN.key)
    assert name in found.data.metrics
    assert name in found.data.params
    assert name in found.data.tags


def test_the_experiment_is_the_users(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", f"{place.workspace.name} of mine")
    MlflowTracker(place.workspace).write(RUN)
    (found,) = place.runs(key=RUN.key)
    experiment = place.client.get_experiment(found.info.experiment_id)
    assert experiment.name == f"{place.workspace.name} of mine"
    other = place.client.create_experiment(f"{place.workspace.name} by number")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", other)
    MlflowTracker(place.workspace).write(replace(RUN, key="c" * 64))
    assert place.runs(key="c" * 64)[0].info.experiment_id == other


def test_a_deleted_experiment_is_an_error(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    name = f"{place.workspace.name} gone"
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", name)
    place.client.delete_experiment(place.client.create_experiment(name))
    with pytest.raises(UsageError, match=r"experiment '.* gone' is deleted; restore it, or choose"):
        MlflowTracker(place.workspace)


@pytest.mark.parametrize("number", ["999999", "mine"])
def test_an_experiment_that_is_not_there_is_an_error(
    place: Place, monkeypatch: pytest.MonkeyPatch, number: str
) -> None:
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", number)
    with pytest.raises(UsageError, match=f"MLFLOW_EXPERIMENT_ID is '{number}', of which"):
        MlflowTracker(place.workspace)


def test_a_deleted_experiment_by_its_number_is_an_error(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    number = place.client.create_experiment(f"{place.workspace.name} to go")
    place.client.delete_experiment(number)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", number)
    with pytest.raises(UsageError, match=r"to go' is deleted; .* with MLFLOW_EXPERIMENT_ID"):
        MlflowTracker(place.workspace)


def test_a_server_that_does_not_answer_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://me:secret@127.0.0.1:{port}")
    with pytest.raises(MissingRequirementError) as caught:
        MlflowTracker(tmp_path)
    words = str(caught.value)
    assert words.startswith(f"the tracking store http://127.0.0.1:{port} cannot be used: ")
    assert words.endswith("Start it, correct MLFLOW_TRACKING_URI, or leave out --track.")
    assert "secret" not in words


def test_a_file_that_is_no_store_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_text("no database")
    with pytest.raises(MissingRequirementError, match=r"Remove it, or leave out --track\.$"):
        MlflowTracker(tmp_path)
    with pytest.raises(MissingRequirementError, match="NotADirectoryError"):
        MlflowTracker(tmp_path / "mlflow.db")


def test_without_the_package_nothing_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lesiontk.tracking.mlflow_tracker.find_spec", lambda name: None)
    with pytest.raises(MissingRequirementError, match=r"pip install 'lesiontk\[mlflow\]'"):
        MlflowTracker.check()


def test_its_telemetry_is_off_when_it_is_imported() -> None:
    code = (
        "import os, sys\n"
        "class Finder:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'mlflow':\n"
        "            print(os.environ.get('MLFLOW_DISABLE_TELEMETRY'))\n"
        "            raise ImportError('only asked for')\n"
        "sys.meta_path.insert(0, Finder())\n"
        "from lesiontk.tracking.mlflow_tracker import import_mlflow\n"
        "import_mlflow()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, env={}
    )
    assert done.stdout == "true\n"
    assert "MLflow cannot be imported (only asked for)" in done.stderr
