"""The file of an artefact's manifest, and the detection of edits.

`content` is the SHA-256 over the content files' hashes and the facts; the manifests of the children
record it. `seal` is the SHA-256 over everything else in the document. Both are recomputed whenever
a manifest is read. This detects edits and mix-ups; it is not a signature.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from lesiontk.errors import DataError, show_value
from lesiontk.files.hashing import hash_document
from lesiontk.files.regular_file import read_regular
from lesiontk.files.strict_json import BYTES, parse_json
from lesiontk.records import Manifest

FORMAT = 4
MANIFEST = "manifest.json"


class ManifestError(DataError):
    """A manifest that cannot be used; `reason` is a short explanation."""

    def __init__(self, folder: Path | str, reason: str) -> None:
        super().__init__(
            f"{folder} is not a usable artefact: {reason}. Run the command that made it "
            "again; it will be rebuilt."
        )
        self.reason = reason


def hash_content(document: Mapping[str, Any]) -> str:
    """Return the SHA-256 over the content files and facts of a manifest's document."""
    auxiliary = document["auxiliary"]
    files = {
        name: entry["sha256"]
        for name, entry in document["files"].items()
        if not any(name == aux or name.startswith(f"{aux}/") for aux in auxiliary)
    }
    return hash_document({"files": files, "facts": document["facts"]})


def write_manifest(folder: Path, document: Mapping[str, Any]) -> None:
    """Seal a manifest's document and write it atomically.

    Raises `ValueError` or `TypeError` for a document that JSON cannot represent.
    """
    sealed = {**document, "content": hash_content(document)}
    sealed["seal"] = _hash_rest(sealed)
    temporary = folder / f"{MANIFEST}.tmp"
    temporary.write_text(json.dumps(sealed, indent=1, allow_nan=False) + "\n")
    temporary.replace(folder / MANIFEST)


def read_manifest(folder: Path) -> Manifest:
    """Return the manifest of a folder.

    Raises `ManifestError` if there is none, if it has another format, or if it was edited.
    """
    try:
        content = read_regular(folder / MANIFEST, "manifest", limit=BYTES)
    except DataError as error:
        raise ManifestError(folder, f"its manifest cannot be read ({error})") from error
    return parse_manifest(content, folder)


def parse_manifest(content: bytes, folder: Path | str) -> Manifest:
    """Return the manifest in a file's bytes; `folder` names the artefact in errors.

    Raises `ManifestError` if it has another format or was edited.
    """
    try:
        document = parse_json(content, f"manifest {folder}/{MANIFEST}")
    except DataError as error:
        raise ManifestError(folder, f"its manifest cannot be read ({error})") from error
    if not isinstance(document, dict) or not document:
        raise ManifestError(folder, "its manifest cannot be read (it has no keys)")
    if document.get("format") != FORMAT:
        found = show_value(document.get("format"))
        raise ManifestError(
            folder, f"its manifest has format {found}; this lesiontk reads format {FORMAT}"
        )
    try:
        manifest = Manifest.model_validate(document)
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in fault["loc"])
        reason = f"its manifest was edited ({where}: {fault['msg']})"
        raise ManifestError(folder, reason) from error
    if manifest.content != hash_content(document):
        raise ManifestError(folder, "its manifest was edited (its facts or files differ)")
    if manifest.seal != _hash_rest(document):
        raise ManifestError(folder, "its manifest was edited")
    return manifest


def _hash_rest(document: Mapping[str, Any]) -> str:
    return hash_document({name: value for name, value in document.items() if name != "seal"})
