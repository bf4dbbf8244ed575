"""The manifest of an artefact: its required keys and the detection of edits.

`content` is the SHA-256 over the content files' hashes and the facts; the manifests of the children
record it. `seal` is the SHA-256 over everything else in the document. Both are recomputed whenever
a manifest is read. This detects edits and mix-ups; it is not a signature.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from lesiontk.errors import DataError, show_value
from lesiontk.files.hashing import hash_document
from lesiontk.files.strict_json import read_json

FORMAT = 4
MANIFEST = "manifest.json"
_NAME = r"[a-z][a-z0-9_]*-[0-9a-f]{12}"
_SHA256 = r"^[0-9a-f]{64}$"


class ManifestError(DataError):
    """A manifest that cannot be used; `reason` is a short explanation."""

    def __init__(self, folder: Path, reason: str) -> None:
        super().__init__(
            f"{folder} is not a usable artefact: {reason}. Run the command that made it "
            "again; it will be rebuilt."
        )
        self.reason = reason


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class _Stage(_Record):
    name: str
    version: int


class _Parent(_Record):
    """A parent is a folder beside its child, given by name, so that no path leads elsewhere."""

    name: str = Field(pattern=f"^{_NAME}$")
    key: str = Field(pattern=_SHA256)
    content: str = Field(pattern=_SHA256)


class _File(_Record):
    bytes: int = Field(ge=0)
    sha256: str = Field(pattern=_SHA256)


def _check_inside(name: str) -> str:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or str(path) != name or name in ("", "."):
        raise ValueError("is not a path inside the artefact")
    return name


class _Manifest(_Record):
    """Every key of a manifest; `facts`, `config` and `recipe` are their stages' own documents."""

    format: int
    kind: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    key: str = Field(pattern=_SHA256)
    content: str = Field(pattern=_SHA256)
    seal: str = Field(pattern=_SHA256)
    stage: _Stage
    schema_version: int
    config: dict[str, Any]
    external_inputs: dict[str, str]
    tools: dict[str, str]
    parents: dict[str, _Parent]
    recipe: dict[str, Any]
    files: dict[Annotated[str, AfterValidator(_check_inside)], _File]
    auxiliary: list[str]
    facts: dict[str, Any]
    measured: dict[str, Any]
    environment: dict[str, Any]
    created: float
    seconds: float = Field(ge=0)


def hash_content(manifest: Mapping[str, Any]) -> str:
    """Return the SHA-256 over a manifest's content files and facts."""
    auxiliary = manifest["auxiliary"]
    files = {
        name: entry["sha256"]
        for name, entry in manifest["files"].items()
        if not any(name == aux or name.startswith(f"{aux}/") for aux in auxiliary)
    }
    return hash_document({"files": files, "facts": manifest["facts"]})


def write_manifest(folder: Path, manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Seal a manifest, write it atomically, and return it as it will be read.

    Raises `ValueError` or `TypeError` for a document that JSON cannot represent.
    """
    document: dict[str, Any] = json.loads(json.dumps(manifest, allow_nan=False))
    document["content"] = hash_content(document)
    document["seal"] = _hash_rest(document)
    temporary = folder / f"{MANIFEST}.tmp"
    temporary.write_text(json.dumps(document, indent=1, allow_nan=False) + "\n")
    temporary.replace(folder / MANIFEST)
    return document


def read_manifest(folder: Path) -> dict[str, Any]:
    """Return the manifest of a folder.

    Raises `ManifestError` if there is none, if it has another format, or if it was edited.
    """
    try:
        read = read_json(folder / MANIFEST, "manifest")
    except DataError as error:
        raise ManifestError(folder, f"its manifest cannot be read ({error})") from error
    if not isinstance(read, dict) or not read:
        raise ManifestError(folder, "its manifest cannot be read (it has no keys)")
    document: dict[str, Any] = read
    if document.get("format") != FORMAT:
        found = show_value(document.get("format"))
        raise ManifestError(
            folder, f"its manifest has format {found}; this lesiontk reads format {FORMAT}"
        )
    try:
        _Manifest.model_validate(document)
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in fault["loc"])
        reason = f"its manifest was edited ({where}: {fault['msg']})"
        raise ManifestError(folder, reason) from error
    if document["content"] != hash_content(document):
        raise ManifestError(folder, "its manifest was edited (its facts or files differ)")
    if document["seal"] != _hash_rest(document):
        raise ManifestError(folder, "its manifest was edited")
    return document


def _hash_rest(manifest: Mapping[str, Any]) -> str:
    return hash_document({name: value for name, value in manifest.items() if name != "seal"})
