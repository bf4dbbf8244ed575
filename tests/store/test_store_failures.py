"""A stage that fails or is interrupted leaves evidence, never an artefact, and can be run again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lesiontk.errors import DataError, LesionTKError
from lesiontk.records import Failure
from lesiontk.stage import Context
from lesiontk.store import Store
from tests.fake_stages import BudgetStage, NoteStage, TextConfig, TextStage


class Obstacle:
    """Stands in a stage's way once; what the stage found in its scratch is in `found`."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.error = error
        self.found: list[str] = []

    def __call__(self, context: Context) -> None:
        self.found = sorted(path.name for path in context.scratch.iterdir())
        (context.scratch / "checkpoint").write_text("epoch 3")
        if self.error is not None:
            error, self.error = self.error, None
            raise error


USER_ERROR = DataError("3 images are broken.")
BUG = ZeroDivisionError("division by zero")


@pytest.mark.parametrize("error", [USER_ERROR, BUG], ids=["a user's error", "a bug"])
def test_a_failure_leaves_its_evidence_and_no_manifest(store: Store, error: Exception) -> None:
    with pytest.raises(type(error), match=str(error)):
        store.build(TextStage(Obstacle(error)), TextConfig(), {}, recipe={"name": "probe"})
    (folder,) = (p for p in store.workspace.iterdir() if not p.name.startswith("."))
    assert sorted(path.name for path in folder.iterdir()) == ["failed.json", "text.txt"]
    failure = json.loads((folder / "failed.json").read_text())
    assert failure["error"] == str(error)
    assert failure["error_class"] == type(error).__name__
    assert failure["stage"] == {"name": "write_text", "version": 1}
    assert failure["config"] == {"text": "a picture"}
    assert failure["recipe"] == {"name": "probe"}
    assert failure["key"].startswith(folder.name.removeprefix("text-"))
    assert store.list_artefacts() == []
    assert store.failures() == [Failure.model_validate(failure)]


def test_a_bug_leaves_its_traceback_and_a_user_error_none(store: Store) -> None:
    for error in (USER_ERROR, BUG):
        with pytest.raises(type(error)):
            store.build(TextStage(Obstacle(error)), TextConfig(text=str(error)), {})
    tracebacks = {f.error_class: f.traceback for f in store.failures()}
    assert tracebacks["DataError"] is None
    assert "in __call__" in tracebacks["ZeroDivisionError"]


@pytest.mark.parametrize("fact", [float("nan"), object()], ids=["not a number", "no document"])
def test_facts_that_cannot_be_written_down_are_a_failure(store: Store, fact: object) -> None:
    stage = TextStage()
    stage.facts = {"metric": fact}
    with pytest.raises((ValueError, TypeError)):
        store.build(stage, TextConfig(), {})
    assert store.list_artefacts() == []
    assert [failure.kind for failure in store.failures()] == ["text"]
    assert not list(store.workspace.glob(".text-*"))


@pytest.mark.parametrize("error", [USER_ERROR, BUG, KeyboardInterrupt()])
def test_the_next_build_works(
    store: Store, error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    stage = TextStage(Obstacle(error))
    with pytest.raises(type(error)):
        store.build(stage, TextConfig(), {})
    text = store.build(stage, TextConfig(), {})
    assert stage.runs == 2
    assert text.file("text.txt").read_text() == "a picture"
    assert sorted(p.name for p in text.path.iterdir()) == ["log", "manifest.json", "text.txt"]
    assert store.damage(text.path) is None
    assert store.failures() == []
    reason = f"{text.name}: rebuilt, because an earlier run failed"
    assert (reason in caplog.text) == isinstance(error, Exception)


def test_an_interrupt_leaves_nothing_but_scratch_and_locks(store: Store) -> None:
    with pytest.raises(KeyboardInterrupt):
        store.build(TextStage(Obstacle(KeyboardInterrupt())), TextConfig(), {})
    assert sorted(path.name for path in store.workspace.iterdir()) == [".locks", ".scratch"]


@pytest.mark.parametrize("error", [USER_ERROR, BUG, KeyboardInterrupt()])
def test_scratch_survives_until_success(store: Store, error: BaseException) -> None:
    obstacle = Obstacle(error)
    with pytest.raises(type(error)):
        store.build(TextStage(obstacle), TextConfig(), {})
    assert obstacle.found == []
    text = store.build(TextStage(obstacle), TextConfig(), {})
    assert obstacle.found == ["checkpoint"]
    assert not (store.workspace / ".scratch" / text.name).exists()


def test_scratch_is_of_one_key(store: Store) -> None:
    obstacle = Obstacle(BUG)
    with pytest.raises(ZeroDivisionError):
        store.build(TextStage(obstacle), TextConfig(text="one"), {})
    store.build(TextStage(obstacle), TextConfig(text="two"), {})
    assert obstacle.found == []


def test_a_larger_budget_goes_on_with_the_scratch_of_a_smaller_one(store: Store) -> None:
    obstacle = Obstacle(BUG)
    with pytest.raises(ZeroDivisionError):
        store.build(BudgetStage(obstacle), TextConfig(text="small"), {})
    found: list[str] = []
    stage = BudgetStage(lambda context: found.extend(p.name for p in context.scratch.iterdir()))
    made = [store.build(stage, TextConfig(text=text), {}) for text in ("larger", "largest")]
    assert made[0].key != made[1].key
    assert found == ["checkpoint", "checkpoint"]


def test_a_restart_forgets_the_scratch_of_its_own_key_alone(store: Store) -> None:
    text, note = Obstacle(BUG), Obstacle(BUG)
    for stage in (TextStage(text), NoteStage(note)):
        with pytest.raises(ZeroDivisionError):
            store.build(stage, TextConfig(), {})
    store.build(TextStage(text), TextConfig(), {}, restart=True)
    store.build(NoteStage(note), TextConfig(), {})
    assert (text.found, note.found) == ([], ["checkpoint"])


def test_what_a_killed_process_left_half_written_is_not_used(store: Store) -> None:
    text = store.build(TextStage(), TextConfig(), {})
    half = store.workspace / f".{text.name}.tmp"
    text.path.rename(half)
    (half / "stale.txt").write_text("of an earlier run")
    again = store.build(TextStage(), TextConfig(), {})
    assert "stale.txt" not in again.manifest.files
    assert not half.exists()


@pytest.mark.parametrize("text", ["", "{", "{}", "[]"])
def test_a_folder_with_a_broken_manifest_hides_no_other(
    store: Store, caplog: pytest.LogCaptureFixture, text: str
) -> None:
    whole = store.build(TextStage(), TextConfig(text="whole"), {})
    broken = store.build(TextStage(), TextConfig(text="broken"), {})
    (broken.path / "manifest.json").write_text(text)
    assert store.list_artefacts() == [whole]
    assert store.resolve("latest") == whole
    assert f"{broken.name}: left out, because its manifest cannot be read" in caplog.text
    with pytest.raises(LesionTKError, match="manifest cannot be read"):
        store.resolve(str(broken.path))


def test_a_workspace_that_does_not_exist_is_empty(tmp_path: Path) -> None:
    store = Store(tmp_path / "nowhere")
    assert store.list_artefacts() == []
    assert store.failures() == []
    assert not store.workspace.exists()
