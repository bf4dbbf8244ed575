"""Equal inputs give one artefact, which is reused while intact; what differs gives another."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from lesiontk.errors import DataError, MissingRequirementError, UsageError
from lesiontk.files.hashing import hash_file
from lesiontk.records import Artefact, FileEntry, ParentEntry
from lesiontk.stage import StepId
from lesiontk.store import Store
from lesiontk.store.machine_paths import MachinePaths
from tests.fake_stages import (
    JoinConfig,
    JoinStage,
    NoteStage,
    TextConfig,
    TextStage,
    TextStageOfVersion2,
)


@pytest.fixture(autouse=True)
def log_everything(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "lesiontk")


def visible(store: Store) -> list[str]:
    """The artefacts' folders, without the store's own."""
    return sorted(path.name for path in store.workspace.iterdir() if path.name[0] != ".")


# ------------------------------------------------------------------------------ what is made


def test_an_artefact_is_a_folder_named_by_kind_and_key(store: Store) -> None:
    text = store.build(TextStage(), TextConfig(text="mole"), {}, recipe={"name": "probe"})
    assert visible(store) == [text.name]
    assert text.path.name == text.name == f"text-{text.key[:12]}"
    assert len(text.key) == len(text.content) == 64
    assert text.file("text.txt").read_text() == "mole"
    assert text.recipe_name == "probe"
    assert text.facts == {"letters": 4}


def test_the_manifest_lists_every_file_with_bytes_and_hash(store: Store) -> None:
    text = store.build(TextStage(), TextConfig(text="mole"), {})
    written = {p.relative_to(text.path).as_posix() for p in text.path.rglob("*") if p.is_file()}
    assert set(text.manifest.files) == written - {"manifest.json"}
    entry = text.manifest.files["text.txt"]
    assert entry == FileEntry(bytes=4, sha256=hash_file(text.path / "text.txt"))


def test_the_manifest_names_the_parents(store: Store) -> None:
    first = store.build(TextStage(), TextConfig(text="a"), {})
    joined = store.build(JoinStage(), JoinConfig(), {"first": first})
    assert joined.manifest.parents == {
        "first": ParentEntry(name=first.name, key=first.key, content=first.content)
    }


def test_the_environment_names_neither_machine_nor_folder(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("platform.node", lambda: "name-of-this-machine")
    recipe = {
        "name": "probe",
        "data": {"path": "/home/somebody/images", "source": "auto"},
        "compress": [{"distill": {"teacher": "/home/somebody/teacher.keras"}}],
    }
    config = TextConfig(path="/home/somebody/images")
    text = store.build(TextStage(), config, {}, recipe=recipe)
    store.build(TextStage(), config, {}, recipe={**recipe, "name": "other"})
    manifest = (text.path / "manifest.json").read_text()
    assert "name-of-this-machine" not in manifest
    assert "/home/somebody" not in manifest
    assert str(store.workspace) not in manifest
    assert recipe_of_document(store, text) == {**recipe, "name": "other"}


def recipe_of_document(store: Store, artefact: Artefact) -> object:
    """The recipe as this machine's workspace reads it."""
    manifest = json.loads((artefact.path / "manifest.json").read_text())
    return MachinePaths(store.workspace).reveal(manifest["recipe"])


def test_a_file_that_is_not_there_is_named_with_those_that_are(store: Store) -> None:
    text = store.build(TextStage(), TextConfig(), {})
    with pytest.raises(DataError, match=r"has no file 'model\.keras'; it has log/run.txt, text"):
        text.file("model.keras")


def test_a_workspace_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(MissingRequirementError, match=r"file cannot be written .*--workspace"):
        Store(tmp_path / "file").build(TextStage(), TextConfig(), {})


# ------------------------------------------------------------------------------ reuse


def test_equal_inputs_are_reused(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    stage = TextStage()
    first = store.build(stage, TextConfig(), {})
    again = Store(store.workspace).build(stage, TextConfig(), {})
    assert again == first
    assert stage.runs == 1
    assert f"{first.name}: reused" in caplog.text
    assert "rebuilt" not in caplog.text


def change(artefact: Artefact) -> None:
    path = artefact.path / "text.txt"
    path.write_text(path.read_text().upper())


def extend(artefact: Artefact) -> None:
    with (artefact.path / "text.txt").open("a") as stream:
        stream.write("!")


def change_the_log(artefact: Artefact) -> None:
    (artefact.path / "log" / "run.txt").write_text("edited")


def remove(artefact: Artefact) -> None:
    (artefact.path / "text.txt").unlink()


def remove_manifest(artefact: Artefact) -> None:
    (artefact.path / "manifest.json").unlink()


def break_manifest(artefact: Artefact) -> None:
    path = artefact.path / "manifest.json"
    path.write_text(path.read_text()[:100])


def empty_manifest(artefact: Artefact) -> None:
    (artefact.path / "manifest.json").write_text("{}")


def edit_fact(artefact: Artefact) -> None:
    """As someone would who wants another threshold on the device."""
    path = artefact.path / "manifest.json"
    path.write_text(path.read_text().replace('"letters": 9', '"letters": 999'))


def edit_config(artefact: Artefact) -> None:
    path = artefact.path / "manifest.json"
    path.write_text(path.read_text().replace('"text": "a picture"', '"text": "a painting"'))


def edit_file_and_its_hash(artefact: Artefact) -> None:
    path = artefact.path / "manifest.json"
    before = hash_file(artefact.path / "text.txt")
    (artefact.path / "text.txt").write_text("A PICTURE")
    path.write_text(path.read_text().replace(before, hash_file(artefact.path / "text.txt")))


def age_manifest(artefact: Artefact) -> None:
    path = artefact.path / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "format": 0}))


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        (change, "text.txt was changed"),
        (extend, "text.txt was changed"),
        (change_the_log, "log/run.txt was changed"),
        (remove, "text.txt is missing"),
        (remove_manifest, "it has no manifest"),
        (break_manifest, "its manifest cannot be read"),
        (empty_manifest, "its manifest cannot be read"),
        (edit_fact, "its manifest was edited (its facts or files differ)"),
        (edit_config, "its manifest was edited"),
        (edit_file_and_its_hash, "its manifest was edited (its facts or files differ)"),
        (age_manifest, "its manifest has format 0; this lesiontk reads format 4"),
    ],
)
def test_what_was_damaged_is_rebuilt_with_the_reason_logged(
    store: Store,
    caplog: pytest.LogCaptureFixture,
    damage: Callable[[Artefact], None],
    why: str,
) -> None:
    stage = TextStage()
    first = store.build(stage, TextConfig(), {})
    damage(first)
    again = store.build(stage, TextConfig(), {})
    assert stage.runs == 2
    assert f"{first.name}: rebuilt, because {why}" in caplog.text
    assert (again.name, again.content) == (first.name, first.content)
    assert again.file("text.txt").read_text() == "a picture"
    assert store.damage(again.path) is None
    assert visible(store) == [first.name]


def test_what_stood_in_the_place_of_a_rebuilt_artefact_is_kept(store: Store) -> None:
    first = store.build(TextStage(), TextConfig(), {})
    for text in ("edited", "edited again"):
        (first.path / "text.txt").write_text(text)
        store.build(TextStage(), TextConfig(), {})
    kept = sorted(path for path in store.workspace.glob(f".{first.name}.old-*"))
    assert [(path / "text.txt").read_text() for path in kept] == ["edited", "edited again"]


def test_a_key_that_begins_like_another_is_not_taken_for_it(
    store: Store, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lesiontk.files.hashing import hash_document

    monkeypatch.setattr(
        "lesiontk.store.store.hash_document",
        lambda document: "0" * 12 + hash_document(document)[12:],
    )
    store.build(TextStage(), TextConfig(text="one"), {})
    two = store.build(TextStage(), TextConfig(text="two"), {})
    assert two.file("text.txt").read_text() == "two"
    assert "rebuilt, because key prefix collision" in caplog.text


# ------------------------------------------------------------------------------ keys


def test_another_config_is_another_artefact(store: Store) -> None:
    one = store.build(TextStage(), TextConfig(text="one"), {})
    two = store.build(TextStage(), TextConfig(text="two"), {})
    assert one.key != two.key
    assert visible(store) == sorted([one.name, two.name])


def test_a_config_field_that_is_excluded_does_not_count(store: Store) -> None:
    stage = TextStage()
    here = store.build(stage, TextConfig(path="/here"), {})
    assert store.build(stage, TextConfig(path="/there"), {}) == here
    assert stage.runs == 1


def test_the_recipe_does_not_count(store: Store) -> None:
    one = store.build(TextStage(), TextConfig(), {}, recipe={"name": "one"})
    assert store.build(TextStage(), TextConfig(), {}, recipe={"name": "two"}).key == one.key


def test_another_version_of_the_stage_is_another_artefact(store: Store) -> None:
    one = store.build(TextStage(), TextConfig(), {})
    assert store.build(TextStageOfVersion2(), TextConfig(), {}).key != one.key


def test_another_stage_is_another_artefact(store: Store) -> None:
    one = store.build(TextStage(), TextConfig(), {})
    assert store.build(NoteStage(), TextConfig(), {}).key != one.key


def test_another_input_from_outside_is_another_artefact(store: Store) -> None:
    stage = TextStage()
    keys = set()
    for inputs in ({}, {"file": "a" * 64}, {"file": "b" * 64}):
        stage.inputs = inputs
        keys.add(store.build(stage, TextConfig(), {}).key)
    assert len(keys) == 3


def test_another_version_of_a_tool_is_another_artefact(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = store.build(TextStage(), TextConfig(), {})
    assert one.manifest.tools.keys() == {"numpy"}
    monkeypatch.setattr("importlib.metadata.version", lambda name: "0.0.1")
    two = store.build(TextStage(), TextConfig(), {})
    assert two.key != one.key
    assert two.manifest.tools == {"numpy": "0.0.1"}


def test_other_parents_make_another_artefact(store: Store) -> None:
    one = store.build(TextStage(), TextConfig(text="one"), {})
    two = store.build(TextStage(), TextConfig(text="two"), {})
    joined = store.build(JoinStage(), JoinConfig(), {"first": one, "rest": two})
    assert store.build(JoinStage(), JoinConfig(), {"rest": two, "first": one}) == joined
    for parents in ({"first": one}, {"first": two}, {"first": two, "rest": one}):
        assert store.build(JoinStage(), JoinConfig(), parents).key != joined.key


def test_a_parent_counts_by_what_it_holds(store: Store) -> None:
    """A parent that was made otherwise and holds the same leaves its children as they are."""
    old = store.build(TextStage(), TextConfig(), {})
    new = store.build(TextStageOfVersion2(), TextConfig(), {})
    assert new.key != old.key
    child = store.build(JoinStage(), JoinConfig(), {"first": old})
    assert store.build(JoinStage(), JoinConfig(), {"first": new}) == child


# ------------------------------------------------------------------------------ content


def test_auxiliary_files_stay_outside_the_content_hash(tmp_path: Path) -> None:
    one = Store(tmp_path / "one").build(TextStage(), TextConfig(), {})
    two = Store(tmp_path / "two").build(TextStage(), TextConfig(), {})
    assert one.file("log/run.txt").read_text() != two.file("log/run.txt").read_text()
    assert one.content == two.content


def test_what_is_measured_is_told_and_stays_outside_the_content_hash(tmp_path: Path) -> None:
    slow, fast = TextStage(), TextStage()
    slow.measured, fast.measured = {"milliseconds": 2.0}, {"milliseconds": 1.0}
    one = Store(tmp_path / "one").build(slow, TextConfig(), {})
    two = Store(tmp_path / "two").build(fast, TextConfig(), {})
    assert (one.facts["milliseconds"], two.facts["milliseconds"]) == (2.0, 1.0)
    assert one.content == two.content


def test_content_files_and_facts_are_inside_the_content_hash(tmp_path: Path) -> None:
    """The twin of the test above."""
    one = Store(tmp_path / "one").build(TextStage(), TextConfig(), {})
    other_file = TextStage(lambda c: (c.directory / "more.txt").write_text("x") and None)
    other_name = TextStage(lambda c: (c.directory / "logbook").write_text("x") and None)
    other_facts = TextStage()
    other_facts.facts = {"metric": 0.5}
    for number, stage in enumerate((other_file, other_name, other_facts)):
        two = Store(tmp_path / f"two-{number}").build(stage, TextConfig(), {})
        assert two.key == one.key
        assert two.content != one.content


# ------------------------------------------------------------------------------ parents


def test_a_parent_of_the_wrong_kind_is_refused(store: Store) -> None:
    note = store.build(NoteStage(), TextConfig(), {})
    with pytest.raises(UsageError, match=f"join got {note.name} as its first; expected text"):
        store.build(JoinStage(), JoinConfig(), {"first": note})
    assert visible(store) == [note.name]


def test_a_role_that_the_stage_does_not_have_is_refused(store: Store) -> None:
    text = store.build(TextStage(), TextConfig(), {})
    with pytest.raises(UsageError, match="stage join has no parent in the role 'last'"):
        store.build(JoinStage(), JoinConfig(), {"last": text})


def test_several_parents_may_have_one_role(store: Store) -> None:
    texts = [store.build(TextStage(), TextConfig(text=t), {}) for t in "abc"]
    roles = ("first", StepId("rest", "one"), StepId("rest", "two"))
    joined = store.build(JoinStage(), JoinConfig(), dict(zip(roles, texts, strict=True)))
    assert joined.file("text.txt").read_text() == "a b c"
    more = store.build(JoinStage(), JoinConfig(), {"first": texts[0], "rest": joined})
    assert more.file("text.txt").read_text() == "a a b c"


def test_a_parent_that_was_edited_is_refused(store: Store) -> None:
    stage = JoinStage()
    text = store.build(TextStage(), TextConfig(), {})
    change(text)
    with pytest.raises(DataError, match=f"{text.name} .*text.txt was changed"):
        store.build(stage, JoinConfig(), {"first": text})
    assert visible(store) == [text.name]


def test_a_parent_that_has_another_content_since_is_told(store: Store) -> None:
    """The child was made from what was there before: it must not be compared with what is."""
    stage = TextStage()
    text = store.build(stage, TextConfig(), {})
    joined = store.build(JoinStage(), JoinConfig(), {"first": text})
    stage.facts = {"metric": 0.5}
    change(text)
    again = store.build(stage, TextConfig(), {})
    assert (again.name, again.content != text.content) == (text.name, True)
    with pytest.raises(DataError, match=f"from {text.name}, which was changed since: run"):
        store.parent(joined, "first")
    assert "was changed since" in str(store.lineage(joined).parents["first"].changed)
    newer = store.build(JoinStage(), JoinConfig(), {"first": again})
    assert newer.key != joined.key
    assert store.parent(newer, "first") == again


def test_a_reused_child_is_told_its_parents_of_now(store: Store) -> None:
    """Where two parents are the same to the stage, the one that is gone is replaced."""
    text = store.build(TextStage(), TextConfig(), {})
    joined = store.build(JoinStage(), JoinConfig(), {"first": text})
    shutil.rmtree(text.path)
    newer = store.build(TextStageOfVersion2(), TextConfig(), {})
    reused = store.build(JoinStage(), JoinConfig(), {"first": newer})
    assert (reused.key, reused.content) == (joined.key, joined.content)
    assert store.parent(reused, "first") == newer
    assert store.damage(reused.path) is None


# ------------------------------------------------------------------------------ lineage


def test_the_lineage_reaches_back_to_the_first_parents(store: Store) -> None:
    one = store.build(TextStage(), TextConfig(text="one"), {})
    two = store.build(TextStage(), TextConfig(text="two"), {})
    joined = store.build(JoinStage(), JoinConfig(), {"first": one, "rest": two})
    last = store.build(JoinStage(), JoinConfig(between="-"), {"first": one, "rest": joined})
    tree = store.lineage(last)
    assert (tree.name, tree.stage) == (last.name, "join")
    assert tree.config == {"between": "-"}
    assert tree.parents["first"].name == one.name
    assert tree.parents["rest"].parents["rest"].name == two.name
    assert tree.parents["rest"].parents["rest"].config == {"text": "two"}
    assert store.parent(store.parent(last, "rest"), "rest") == two


def test_a_parent_that_was_deleted_is_told(store: Store) -> None:
    text = store.build(TextStage(), TextConfig(), {})
    joined = store.build(JoinStage(), JoinConfig(), {"first": text})
    remove_manifest(text)
    assert store.lineage(joined).parents["first"].gone
    with pytest.raises(DataError, match=f"made from {text.name}, which is no longer beside it"):
        store.parent(joined, "first")
    with pytest.raises(DataError, match="has no parent in the role 'rest'"):
        store.parent(joined, "rest")
