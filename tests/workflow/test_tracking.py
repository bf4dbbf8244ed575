"""What a tracker gets of a workspace: each run once, no image, no path; work goes on without it."""

from __future__ import annotations

import gc
import logging
import pickle
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest

import lesiontk
from lesiontk.errors import GateFailedError, MissingRequirementError, UsageError
from lesiontk.stage import BuildObserver, Context, StageInfo, StoppedError
from lesiontk.store import Store
from lesiontk.tracking import TRACKERS, State, TrackedRun, Tracker
from lesiontk.workflow import tracking as module
from lesiontk.workflow.tracked_runs import TRACKED, flatten
from lesiontk.workflow.tracking import Tracking
from tests.fake_stages import TextConfig, TextStage

Fault = Callable[[TrackedRun], None]


class NoteTracker(Tracker):
    """Keeps every run that is written; `fault` may raise instead, and connecting may fail."""

    written: ClassVar[list[TrackedRun]]
    fault: ClassVar[Fault]
    connections: ClassVar[int]
    reachable: ClassVar[bool]

    @classmethod
    def check(cls) -> None:
        pass

    def __init__(self, workspace: Path) -> None:
        if not self.reachable:
            raise MissingRequirementError("the note tracker cannot be reached.")
        type(self).connections += 1

    def write(self, run: TrackedRun) -> None:
        type(self).fault(run)
        self.written.append(run)


class TextModelStage(TextStage):
    """Its text is as a model to the tracker; `during` may call the observer of epochs."""

    info: ClassVar[StageInfo] = replace(TextStage.info, produces="textmodel")


@pytest.fixture(autouse=True)
def notes(monkeypatch: pytest.MonkeyPatch) -> type[NoteTracker]:
    """A tracker `notes`, which tracks texts."""
    monkeypatch.setitem(TRACKERS._targets, "notes", f"{__name__}:NoteTracker")
    monkeypatch.setitem(TRACKED, "textmodel", lambda a: ({"letters": a.facts["letters"]}, {}, {}))
    monkeypatch.setattr(NoteTracker, "written", [], raising=False)
    monkeypatch.setattr(NoteTracker, "fault", staticmethod(lambda run: None), raising=False)
    monkeypatch.setattr(NoteTracker, "connections", 0, raising=False)
    monkeypatch.setattr(NoteTracker, "reachable", True, raising=False)
    monkeypatch.delenv("LESIONTK_TRACK", raising=False)
    return NoteTracker


def tracked(store: Store) -> Store:
    return Store(store.workspace, threads=1, observer=Tracking("notes", store.workspace))


def train(epochs: int, then: BaseException | None = None) -> TextModelStage:
    """Return a stage that reports epochs, and then may raise."""

    def during(context: Context) -> None:
        assert context.on_epoch is not None
        for epoch in range(1, epochs + 1):
            context.on_epoch(epoch, {"loss": 1 / epoch, "balanced_accuracy": epoch / 10})
        if then is not None:
            raise then

    return TextModelStage(during)


def test_a_stage_is_recorded_when_it_begins_in_each_epoch_and_when_it_ends(
    store: Store, notes: type[NoteTracker]
) -> None:
    made = tracked(store).build(train(2), TextConfig(), {}, recipe={"name": "tiny"})
    begun, first, second, ended = notes.written
    assert {run.key for run in notes.written} == {made.key}
    assert [run.state for run in notes.written] == [State.RUNNING] * 3 + [State.FINISHED]
    assert begun.name == f"tiny write_text {made.name}"
    assert begun.params == {"text": "a picture"}
    assert first.epochs == {1: {"training/loss": 1.0, "validation/balanced_accuracy": 0.1}}
    assert second.epochs == {2: {"training/loss": 0.5, "validation/balanced_accuracy": 0.2}}
    assert ended.metrics == {"letters": 9}
    assert ended.tags["lesiontk.content"] == made.content
    assert ended.tags["lesiontk.file.text.txt"] == made.manifest.files["text.txt"].sha256
    assert ended.tags["lesiontk.artefact"] == made.name
    assert "lesiontk.tool.numpy" in ended.tags


def test_a_pruner_still_observes_the_epochs(store: Store, notes: type[NoteTracker]) -> None:
    seen = []

    def prune(epoch: int, metrics: Mapping[str, float]) -> None:
        seen.append(epoch)
        if epoch == 2:
            raise StoppedError("behind")

    with pytest.raises(StoppedError):
        tracked(store).observed_by(prune).build(train(3), TextConfig(), {})
    assert seen == [1, 2]
    assert [list(run.epochs) for run in notes.written] == [[], [1], [2], []]
    assert notes.written[-1].state is State.STOPPED


@pytest.mark.parametrize(
    ("error", "state"),
    [(KeyboardInterrupt(), State.STOPPED), (GateFailedError("/home/x"), State.FAILED)],
)
def test_a_stage_that_raises_leaves_its_state_and_not_its_message(
    error: BaseException, state: State, store: Store, notes: type[NoteTracker]
) -> None:
    with pytest.raises(type(error)):
        tracked(store).build(train(1, error), TextConfig(), {})
    last = notes.written[-1]
    assert last.state is state
    assert last.tags["lesiontk.error"] == type(error).__name__
    assert "/home/x" not in str(last)


def test_a_reused_artefact_is_recorded_once_in_a_process(
    store: Store, notes: type[NoteTracker]
) -> None:
    store.build(train(1), TextConfig(), {})
    watched = tracked(store)
    for _ in range(3):
        watched.build(train(1), TextConfig(), {})
    (run,) = notes.written
    assert run.state is State.FINISHED


def test_other_kinds_are_not_recorded(store: Store, notes: type[NoteTracker]) -> None:
    tracked(store).build(TextStage(), TextConfig(), {})
    assert notes.written == []


# ---------------------------------------------------------------------- a tracker that fails


def fail(run: TrackedRun) -> None:
    raise ConnectionError("http://me:secret@host refused\nand a long trace")


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.message for r in caplog.records if r.levelno == logging.WARNING]


def test_a_training_goes_on_without_its_tracker(
    store: Store, notes: type[NoteTracker], monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    """The server ends in the second epoch: one warning, no further epoch, all of it in the end."""

    def stop_at_second(run: TrackedRun) -> None:
        if 2 in run.epochs:
            fail(run)

    monkeypatch.setattr(NoteTracker, "fault", staticmethod(stop_at_second))
    watched = tracked(store)
    made = watched.build(train(4), TextConfig(), {})
    assert store.damage(made.path) is None
    assert warnings_of(caplog) == [
        f"notes does not record write_text {made.name} (ConnectionError: http://host refused); the "
        "work goes on"
    ]
    assert [list(run.epochs) for run in notes.written] == [[], [1], []]
    assert notes.written[-1].state is State.FINISHED
    assert isinstance(watched.observer, Tracking)
    assert watched.observer.missing == ()


def test_what_was_not_recorded_is_said_in_the_end_and_follows(
    store: Store, notes: type[NoteTracker], monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    monkeypatch.setattr(NoteTracker, "fault", staticmethod(fail))
    watched = tracked(store)
    names = [watched.build(train(1), TextConfig(text=text), {}).name for text in ("a", "b")]
    del watched
    gc.collect()
    first, last = warnings_of(caplog)
    assert "the work goes on" in first
    assert last == (
        f"notes has not recorded 2: write_text {names[0]}, write_text {names[1]}. Run the same "
        "command again when it can be reached."
    )
    monkeypatch.setattr(NoteTracker, "fault", staticmethod(lambda run: None))
    again = tracked(store)
    for text in ("a", "b"):
        again.build(train(1), TextConfig(text=text), {})
    assert [run.tags["lesiontk.artefact"] for run in notes.written] == names


def test_a_tracker_that_is_gone_is_left_alone(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each attempt may take as long as its time-out."""
    tried = []

    def count(run: TrackedRun) -> None:
        tried.append(run)
        fail(run)

    monkeypatch.setattr(NoteTracker, "fault", staticmethod(count))
    watched = tracked(store)
    for number in range(10):
        watched.build(train(3), TextConfig(text=str(number)), {})
    assert len(tried) == module.ATTEMPTS
    assert isinstance(watched.observer, Tracking)
    assert len(watched.observer.missing) == 10


def test_a_tracker_that_cannot_be_reached_ends_the_command_before_any_work(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(NoteTracker, "reachable", False)
    stage = TextStage()
    with pytest.raises(MissingRequirementError, match="cannot be reached"):
        tracked(store).build(stage, TextConfig(), {})
    assert stage.runs == 0
    assert store.list_names() == []


# ---------------------------------------------------------------------- who is tracked


def test_nothing_is_tracked_by_default(tmp_path: Path) -> None:
    assert type(lesiontk.Workspace(tmp_path).store.observer) is BuildObserver


def test_the_environment_and_the_call_choose_the_tracker(
    tmp_path: Path, notes: type[NoteTracker], monkeypatch: pytest.MonkeyPatch
) -> None:
    def name_of(**options: Any) -> str:
        observer = lesiontk.Workspace(tmp_path, progress=False, **options).store.observer
        return observer.name if isinstance(observer, Tracking) else ""

    assert name_of(track="notes") == "notes"
    monkeypatch.setenv("LESIONTK_TRACK", "notes")
    assert name_of() == "notes"
    assert name_of(track="") == ""
    assert notes.connections == 0  # a command that makes nothing connects to nothing


def test_an_unknown_tracker_is_named_at_once(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"unknown tracker 'mlfow'; .* Did you mean 'mlflow'\?"):
        lesiontk.Workspace(tmp_path, track="mlfow")


def test_another_process_connects_for_itself(store: Store) -> None:
    watched = tracked(store)
    watched.build(train(1), TextConfig(), {})
    other = pickle.loads(pickle.dumps(watched.observer))
    assert isinstance(other, Tracking)
    assert other.missing == ()


# ---------------------------------------------------------------------- parameters


def test_a_config_becomes_flat_parameters_without_paths() -> None:
    document = {
        "train": {"epochs": 2, "grow": None, "imbalance": ["class_weight", "focal"]},
        "weights": "/home/someone/weights.h5",
        "teacher": ["lesiontk-workspace/engine-1/engine.tflite", r"C:\Users\x\y.onnx"],
        "gate": ["macro_auc >= parent - 0.01 @ 0.95"],
        "compress": [{"prune": {"keep_macs": 0.5}}],
        "devices": [{"device": "a board"}],
    }
    assert flatten(document) == {
        "train.epochs": "2",
        "train.imbalance": "class_weight, focal",
        "weights": "weights.h5",
        "teacher": "engine.tflite, y.onnx",
        "gate": "macro_auc >= parent - 0.01 @ 0.95",
        "compress": '[{"prune": {"keep_macs": 0.5}}]',
    }
