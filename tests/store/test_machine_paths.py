"""A manifest has aliases where the workspace has paths."""

from __future__ import annotations

import json
from pathlib import Path

from lesiontk.store.machine_paths import PREFIX, MachinePaths

DOCUMENT = {
    "name": "probe",
    "data": {"path": "/home/somebody/images", "task": None, "n": 3},
    "compress": [{"distill": {"teacher": "/home/somebody/t.keras"}}, {"other": "C:\\Users\\x\\y"}],
    "relative": "images/here",
}


def test_a_concealed_document_comes_back_whole(tmp_path: Path) -> None:
    concealed = MachinePaths(tmp_path).conceal(DOCUMENT)
    text = json.dumps(concealed)
    assert "somebody" not in text
    assert "Users" not in text
    assert concealed["data"]["path"].startswith(PREFIX)
    assert concealed["relative"] == "images/here"
    assert MachinePaths(tmp_path).reveal(concealed) == DOCUMENT
    assert MachinePaths(tmp_path).conceal(concealed) == concealed


def test_an_alias_from_another_workspace_stays_one(tmp_path: Path) -> None:
    concealed = MachinePaths(tmp_path).conceal(DOCUMENT)
    (tmp_path / "other").mkdir()
    assert MachinePaths(tmp_path / "other").reveal(concealed) == concealed


def test_what_is_kept_is_kept_when_more_comes(tmp_path: Path) -> None:
    paths = MachinePaths(tmp_path)
    first = paths.conceal({"path": "/one"})
    paths.conceal({"path": "/two"})
    assert paths.reveal(first) == {"path": "/one"}
