"""Artefacts as the store would have made them, and changed ones."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from lesiontk.backends.backend import EngineStructure, Quantization
from lesiontk.backends.engine_facts import EngineFacts
from lesiontk.document import Record
from lesiontk.evaluate.comparison import Agreement
from lesiontk.evaluate.verification import Verification
from lesiontk.records import Artefact, Manifest
from lesiontk.store.manifest import FORMAT


def make_artefact(
    path: Path,
    kind: str,
    facts: Record | Mapping[str, Any] | None = None,
    files: Iterable[str] = (),
    *,
    key: str = "0",
    **changes: Any,
) -> Artefact:
    """Return an artefact whose key and content are 64 times the digit `key`."""
    document = {
        "format": FORMAT,
        "kind": kind,
        "key": key * 64,
        "content": key * 64,
        "stage": {"name": kind, "version": 1},
        "schema_version": facts.SCHEMA if isinstance(facts, Record) else 1,
        "config": {},
        "external_inputs": {},
        "tools": {},
        "parents": {},
        "recipe": {},
        "files": {name: {"bytes": 0, "sha256": key * 64} for name in files},
        "auxiliary": [],
        "facts": facts.to_document() if isinstance(facts, Record) else dict(facts or {}),
        "measured": {},
        "environment": {},
        "created": 0.0,
        "seconds": 0.0,
        **changes,
    }
    return Artefact(path, Manifest.model_validate(document))


def change_manifest(artefact: Artefact, **changes: Any) -> Artefact:
    """Return an artefact with other values in its manifest."""
    return replace(artefact, manifest=artefact.manifest.model_copy(update=changes))


def make_engine_facts(target: str = "tflite:int8", file: str = "engine") -> EngineFacts:
    """Return the facts of an engine that agrees with its model."""
    backend, _, precision = target.partition(":")
    return EngineFacts(
        target=target,
        backend=backend,
        precision=precision,
        file=file,
        size_bytes=1,
        labels=(),
        split_hash="",
        float_operators=(),
        quantization=Quantization(),
        structure=EngineStructure({}, {}),
        verification=Verification(1, (), Agreement(1, 1.0, 0.0, 0.0, 0.0)),
    )
