"""Verification reads every byte that it says is intact, and says what it could not read."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import pytest

from lesiontk.errors import DataError, GateFailedError, UsageError
from lesiontk.records import Artefact
from lesiontk.stage import StageInfo
from lesiontk.store import Store
from lesiontk.store.manifest import write_manifest
from lesiontk.workflow.lineage import describe_derivation
from lesiontk.workflow.verify import verify_artefact, verify_workspace
from tests.artefacts import make_artefact
from tests.fake_stages import JoinConfig, JoinStage, TextConfig, TextStage
from tests.model_facts import make_facts, make_step


class ModelStage(JoinStage):
    info: ClassVar[StageInfo] = replace(JoinStage.info, name="train", produces="model")


@pytest.fixture
def text(store: Store) -> Artefact:
    return store.build(TextStage(), TextConfig(), {})


@pytest.fixture
def model(store: Store, text: Artefact) -> Artefact:
    made = store.build(ModelStage(), JoinConfig(), {"first": text})
    store.build(TextStage(), TextConfig(text="later, and of no model"), {})
    return made


def test_an_artefact_and_its_ancestors_are_checked(
    store: Store, text: Artefact, model: Artefact
) -> None:
    findings = verify_artefact(store, model)
    assert (findings.intact, findings.gone) == ((model.name, text.name), ())
    assert findings.engines == {}


def test_the_whole_workspace_is_checked(store: Store, model: Artefact) -> None:
    findings = verify_workspace(store)
    assert (findings.artefact, len(findings.intact)) == (model.name, 3)
    assert verify_workspace(Store(store.workspace / "empty")).intact == ()


def test_an_edit_is_found_in_what_no_model_was_made_from(store: Store, model: Artefact) -> None:
    """An evaluation, say, whose threshold a device would take."""
    (later,) = (a for a in store.list_artefacts("text") if a.facts["letters"] > 9)
    path = later.path / "manifest.json"
    path.write_text(path.read_text().replace('"letters": 22', '"letters": 999'))
    with pytest.raises(DataError, match=f"{later.name} .*manifest was edited"):
        verify_workspace(store)


def test_an_ancestor_that_is_gone_is_told(store: Store, text: Artefact, model: Artefact) -> None:
    shutil.rmtree(text.path)
    findings = verify_artefact(store, model)
    assert (findings.intact, findings.gone) == ((model.name,), (text.name,))


def test_a_changed_file_of_an_ancestor_fails(store: Store, text: Artefact, model: Artefact) -> None:
    (text.path / "text.txt").write_text("A PICTURE")
    with pytest.raises(GateFailedError, match=f"{text.name} .*text.txt was changed"):
        verify_artefact(store, model)
    with pytest.raises(GateFailedError, match=f"{text.name} .*text.txt was changed"):
        verify_workspace(store)


def test_an_edited_manifest_is_an_error_with_the_name(
    store: Store, text: Artefact, model: Artefact
) -> None:
    path = text.path / "manifest.json"
    path.write_text(path.read_text().replace('"letters": 9', '"letters": 999'))
    with pytest.raises(GateFailedError, match=f"made from {text.name}, .*manifest was edited"):
        verify_artefact(store, model)
    with pytest.raises(DataError, match=f"{text.name} .*manifest was edited"):
        verify_workspace(store)


def test_an_ancestor_with_another_content_fails(
    store: Store, text: Artefact, model: Artefact
) -> None:
    """Whole and sealed, and not what the model was made from."""
    document = json.loads((text.path / "manifest.json").read_text())
    document["facts"]["letters"] = 999
    write_manifest(text.path, document)
    with pytest.raises(GateFailedError, match="which was changed since"):
        verify_artefact(store, model)


def test_the_latest_model_is_not_the_latest_artefact(store: Store, model: Artefact) -> None:
    assert store.resolve("latest").kind == "text"
    assert store.resolve("latest", "model") == model
    with pytest.raises(UsageError, match="no model in"):
        Store(store.workspace / "empty").resolve("latest", "model")


def test_a_model_is_told_by_its_derivation() -> None:
    def made(stage: str, *before: str) -> Artefact:
        history = tuple(make_step(name) for name in before)
        facts = make_facts(stage, architecture="imported", history=history)
        return make_artefact(Path("nowhere"), "model", facts)

    assert describe_derivation(made("import")) == "imported"
    assert describe_derivation(made("prune", "import")) == "imported + prune"
    assert describe_derivation(made("qat", "import", "prune")) == "imported + prune + qat"
