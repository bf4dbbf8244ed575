"""A manifest is what was written, or an error says that it is not."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest

from lesiontk.document import Record
from lesiontk.errors import DataError
from lesiontk.records import Artefact, FileEntry
from lesiontk.store import Store
from lesiontk.store.manifest import ManifestError, hash_content, read_manifest, write_manifest
from tests.artefacts import change_manifest
from tests.fake_stages import JoinConfig, JoinStage, TextConfig, TextStage

Document = dict[str, Any]
OTHER_VALUES = ("x", 1, None, {}, [], "../../etc", 1e9, "f" * 64, f"text-{'0' * 12}")


@pytest.fixture
def joined(store: Store) -> Artefact:
    stage = TextStage()
    stage.facts, stage.measured = {"threshold": 0.2}, {"milliseconds": 3.0}
    text = store.build(stage, TextConfig(), {}, recipe={"name": "probe"})
    return store.build(JoinStage(), JoinConfig(), {"first": text}, recipe={"name": "probe"})


def leaves(document: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path of every value of a document, and of its sections."""
    found = [path] if path else []
    if isinstance(document, dict):
        for key, value in document.items():
            found += leaves(value, (*path, key))
    return found


def test_every_value_of_a_manifest_is_sealed(store: Store, joined: Artefact) -> None:
    (text,) = store.list_artefacts("text")
    for artefact in (text, joined):
        manifest = read_manifest(artefact.path)
        whole = manifest.model_dump()
        for path in leaves(whole):
            for value in OTHER_VALUES:
                edited = json.loads(json.dumps(whole))
                node = edited
                for key in path[:-1]:
                    node = node[key]
                if node[path[-1]] == value:
                    continue
                node[path[-1]] = value
                (artefact.path / "manifest.json").write_text(json.dumps(edited))
                with pytest.raises(ManifestError):
                    read_manifest(artefact.path)
                assert store.damage(artefact.path) is not None
        (artefact.path / "manifest.json").write_text(json.dumps(whole))
        assert read_manifest(artefact.path) == manifest  # the twin: spaces and order do not count


def reseal(folder: Path, change: Callable[[Document], object]) -> None:
    """Edit a manifest as one would who knows how it is sealed."""
    document = json.loads((folder / "manifest.json").read_text())
    change(document)
    write_manifest(folder, document)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda d: d["parents"]["first"].update(name="../text-000000000000"), "first.name"),
        (lambda d: d["parents"]["first"].update(name="/etc"), "first.name"),
        (lambda d: d["parents"]["first"].update(name="text-00000000000g"), "first.name"),
        (lambda d: d["parents"]["first"].update(name="text-000000000000\n"), "first.name"),
        (lambda d: d["parents"].update(first="text-000000000000"), "parents.first"),
        (lambda d: d["parents"]["first"].pop("content"), "first.content"),
        (lambda d: d.update(parents=[]), "parents"),
        (lambda d: d.update(kind="../x"), "kind"),
        (lambda d: d.update(key="abc"), "key"),
        (lambda d: d.update(created="now"), "created"),
        (lambda d: d.update(seconds=-1), "seconds"),
        (lambda d: d.update(more=1), "more"),
        (lambda d: d.update(stage={"name": "join"}), "stage.version"),
        (lambda d: d["files"].update({"../x": {"bytes": 1, "sha256": "0" * 64}}), "files"),
        (lambda d: d["files"].update({"/x": {"bytes": 1, "sha256": "0" * 64}}), "files"),
        (lambda d: d["files"].update({"a//b": {"bytes": 1, "sha256": "0" * 64}}), "files"),
        (lambda d: d["files"]["text.txt"].update(bytes=-1), "text.txt.bytes"),
    ],
)
def test_a_manifest_of_another_form_is_refused_though_it_is_sealed(
    store: Store, joined: Artefact, change: Callable[[Document], object], reason: str
) -> None:
    reseal(joined.path, change)
    with pytest.raises(ManifestError, match=rf"{joined.name} .*was edited .*{reason}"):
        store.resolve(str(joined.path))
    with pytest.raises(DataError, match=joined.name):
        store.resolve(joined.name)


def test_a_sealed_edit_of_a_parent_is_found_by_its_child(store: Store, joined: Artefact) -> None:
    (text,) = store.list_artefacts("text")
    reseal(text.path, lambda document: document["facts"].update(threshold=0.999))
    assert store.damage(text.path) is None
    with pytest.raises(DataError, match="was changed since"):
        store.parent(joined, "first")


def test_a_manifest_of_an_older_format_is_refused_with_the_mend(
    store: Store, joined: Artefact
) -> None:
    reseal(joined.path, lambda document: document.update(format=1))
    for reference in (joined.name, str(joined.path)):
        with pytest.raises(DataError, match=r"format 1; this lesiontk reads .* Run the command"):
            store.resolve(reference)
    assert joined.name not in [a.name for a in store.list_artefacts()]


def test_a_manifest_is_a_regular_file_of_bounded_depth(store: Store, joined: Artefact) -> None:
    manifest = joined.path / "manifest.json"
    manifest.write_text('{"a":' * 100_000)
    with pytest.raises(DataError, match="nested too deeply"):
        store.resolve(joined.name)
    manifest.unlink()
    manifest.symlink_to(manifest)
    with pytest.raises(DataError, match="symbolic link that leads back to itself"):
        read_manifest(joined.path)


def test_the_content_is_over_content_files_and_facts(joined: Artefact) -> None:
    document = read_manifest(joined.path).model_dump()
    assert document["content"] == hash_content(document)
    for part in ("measured", "created", "recipe"):
        changed = {**document, part: {"x": 1}}
        assert hash_content(changed) == document["content"]
    for part in ("facts", "files"):
        changed = {**document, part: {}}
        assert hash_content(changed) != document["content"]


def test_a_record_of_another_version_is_refused_by_name_with_the_mend(joined: Artefact) -> None:
    """Never misread: its fields may mean something else."""

    @dataclass(frozen=True, slots=True)
    class Size(Record):
        SCHEMA: ClassVar[int] = 2

        width: int

    (joined.path / "size.json").write_text('{"width": 3}')
    files = {**joined.manifest.files, "size.json": FileEntry(bytes=12, sha256="0" * 64)}
    older = change_manifest(joined, files=files)
    assert joined.manifest.schema_version == 1
    with pytest.raises(
        DataError, match=r"joined-\w+ has a Size of version 1; .* reads version 2\. Run the command"
    ):
        older.read("size.json", Size)
    newer = change_manifest(older, schema_version=2)
    assert newer.read("size.json", Size) == Size(3)
