"""Paths of this machine are replaced by aliases in the manifests of artefacts.

An artefact may be passed on, and a path may contain the name of a user, a project or a patient.
The workspace maps each alias to its path, so that later commands find the images again.
"""

from __future__ import annotations

import json
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from lesiontk.errors import DataError
from lesiontk.files.hashing import hash_document
from lesiontk.files.strict_json import read_json

PREFIX = "machine-path:"


class MachinePaths:
    """The aliases of one workspace; `conceal` requires a lock of the workspace."""

    def __init__(self, workspace: Path) -> None:
        self._path = workspace / ".machine_paths.json"

    def conceal(self, document: Any) -> Any:
        """Return a JSON document with each absolute path replaced by an alias."""
        known = self._read()
        before = len(known)
        concealed = _replace(document, lambda text: _alias(text, known))
        if len(known) > before:
            temporary = self._path.with_suffix(".tmp")
            temporary.write_text(json.dumps(known, indent=1) + "\n")
            temporary.replace(self._path)
        return concealed

    def reveal(self, document: Any) -> Any:
        """Return a document with each alias replaced by its path; unknown aliases stay."""
        known = self._read()
        return _replace(document, lambda text: known.get(text, text))

    def _read(self) -> dict[str, str]:
        if not self._path.exists():
            return {}
        try:
            document = read_json(self._path, "the workspace's file")
        except DataError as error:
            raise DataError(f"{error} Remove it, and specify the images with --data.") from error
        pairs = document.items() if isinstance(document, dict) else ()
        return {alias: path for alias, path in pairs if isinstance(path, str)}


def _alias(text: str, known: dict[str, str]) -> str:
    if not (PurePosixPath(text).is_absolute() or PureWindowsPath(text).is_absolute()):
        return text
    alias = f"{PREFIX}{hash_document(text)[:12]}"
    known[alias] = text
    return alias


def _replace(document: Any, change: Any) -> Any:
    if isinstance(document, dict):
        return {key: _replace(value, change) for key, value in document.items()}
    if isinstance(document, list | tuple):
        return [_replace(value, change) for value in document]
    return change(document) if isinstance(document, str) else document
