"""A reference means one artefact, or the error says why it does not."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from lesiontk.errors import UsageError
from lesiontk.files.hashing import hash_document
from lesiontk.records import Artefact
from lesiontk.store import Store
from tests.fake_stages import NoteStage, TextConfig, TextStage


def build_text(store: Store, text: str, recipe: str) -> Artefact:
    return store.build(TextStage(), TextConfig(text=text), {}, recipe={"name": recipe})


@pytest.fixture
def texts(store: Store) -> list[Artefact]:
    """Three texts, the oldest first; the second of another recipe."""
    return [
        build_text(store, "one", "binary"),
        build_text(store, "two", "seven"),
        build_text(store, "three", "binary"),
    ]


def test_they_are_listed_the_last_used_first(store: Store, texts: list[Artefact]) -> None:
    assert store.list_artefacts() == texts[::-1]


def test_latest_is_the_last_made(store: Store, texts: list[Artefact]) -> None:
    assert store.resolve("latest") == texts[2]


def test_reuse_makes_latest(store: Store, texts: list[Artefact]) -> None:
    store.build(TextStage(), TextConfig(text="one"), {})
    assert store.resolve("latest") == texts[0]


def test_latest_follows_the_order_of_use_and_no_clock(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A clock that ran ahead, a touched folder or a copied workspace changes nothing."""
    monkeypatch.setattr("lesiontk.store.store.time.time", lambda: 1.9e9)  # 2030
    early = build_text(store, "one", "")
    monkeypatch.setattr("lesiontk.store.store.time.time", lambda: 1.7e9)
    late = build_text(store, "two", "")
    os.utime(early.path, (2e9, 2e9))
    os.utime(early.path / "manifest.json", (2e9, 2e9))
    assert store.resolve("latest") == late
    copied = Store(store.workspace.with_name("copied"))
    shutil.copytree(store.workspace, copied.workspace)
    assert copied.resolve("latest").name == late.name


def test_an_artefact_that_was_copied_into_the_workspace_is_not_the_latest(
    store: Store, tmp_path: Path
) -> None:
    stranger = build_text(Store(tmp_path / "other"), "one", "")
    own = build_text(store, "two", "")
    shutil.copytree(stranger.path, store.workspace / stranger.name)
    assert [a.name for a in store.list_artefacts()] == [own.name, stranger.name]
    build_text(store, "one", "")
    assert store.resolve("latest").name == stranger.name


@pytest.mark.parametrize("damage", [b"", b"\xff\n../..\n\0\n", None])
def test_a_broken_order_of_use_hides_no_artefact(
    store: Store, texts: list[Artefact], damage: bytes | None
) -> None:
    path = store.workspace / ".use_order"
    if damage is None:
        path.unlink()
    else:
        path.write_bytes(damage)
    assert {a.name for a in store.list_artefacts()} == {a.name for a in texts}
    build_text(store, "one", "binary")
    assert store.resolve("latest").name == texts[0].name


def test_latest_of_a_recipe(store: Store, texts: list[Artefact]) -> None:
    assert store.resolve("latest:seven") == texts[1]
    assert store.resolve("latest:binary") == texts[2]


def test_latest_of_a_kind(store: Store, texts: list[Artefact]) -> None:
    note = store.build(NoteStage(), TextConfig(), {})
    assert store.resolve("latest") == note
    assert store.resolve("latest", "text") == texts[2]


def test_a_name_a_key_and_its_beginning(store: Store, texts: list[Artefact]) -> None:
    for text in texts:
        for reference in (text.name, text.key, text.key[:12]):
            assert store.resolve(reference) == text


def test_a_path(store: Store, texts: list[Artefact], monkeypatch: pytest.MonkeyPatch) -> None:
    assert store.resolve(str(texts[0].path)) == texts[0]
    monkeypatch.chdir(store.workspace.parent)
    assert store.resolve(f"workspace/{texts[0].name}").key == texts[0].key


def test_a_path_of_another_workspace(tmp_path: Path, texts: list[Artefact]) -> None:
    assert Store(tmp_path / "other").resolve(str(texts[1].path)) == texts[1]


def test_a_path_of_another_kind_is_refused(store: Store, texts: list[Artefact]) -> None:
    with pytest.raises(UsageError, match="is of kind text; expected model"):
        store.resolve(str(texts[0].path), "model")


def test_a_beginning_that_fits_several_names_them(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "lesiontk.store.store.hash_document", lambda document: "abcd" + hash_document(document)[4:]
    )
    one = build_text(store, "one", "")
    two = build_text(store, "two", "")
    with pytest.raises(UsageError) as caught:
        store.resolve("abcd")
    assert str(caught.value) == f"'abcd' matches {two.name}, {one.name}; give more digits."
    assert store.resolve(one.key[:12]) == one


@pytest.mark.parametrize("reference", ["latest:nine", "ffffffff", "text-000000000000", "no/folder"])
def test_a_reference_that_fits_nothing_is_refused(
    store: Store, texts: list[Artefact], reference: str
) -> None:
    with pytest.raises(UsageError, match=f"no artefact in .* matches '{reference}'; `lesiontk ls`"):
        store.resolve(reference)


def test_fewer_than_four_digits_are_too_few(store: Store, texts: list[Artefact]) -> None:
    with pytest.raises(UsageError, match="matches"):
        store.resolve(texts[0].key[:3])


def test_a_kind_that_is_not_there_says_what_makes_it(store: Store, texts: list[Artefact]) -> None:
    with pytest.raises(UsageError, match=r"no model in .* matches 'latest'; .*`lesiontk train` m"):
        store.resolve("latest", "model")


def test_a_key_of_another_kind_does_not_fit(store: Store, texts: list[Artefact]) -> None:
    with pytest.raises(UsageError, match="no engine in"):
        store.resolve(texts[0].key, "engine")


def test_a_path_that_is_of_no_use_is_told_apart(store: Store, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("none of ours")
    with pytest.raises(UsageError, match=r"notes\.txt exists, but is no artefact, no engine file"):
        store.resolve(str(tmp_path / "notes.txt"))
    with pytest.raises(UsageError, match=r"There is no file or folder nosuch\.tflite\."):
        store.resolve("nosuch.tflite")
