"""Which tools an artefact depends on that was made by converting or running engines."""

from __future__ import annotations

from collections.abc import Iterable

from lesiontk.backends import BACKENDS, parse_target
from lesiontk.records import Artefact


def tools_of_conversion(target: str) -> tuple[str, ...]:
    """Return what an engine ``backend:precision`` depends on that is made and run here."""
    backend = BACKENDS.get(parse_target(target)[0])()
    return (*backend.list_conversion_tools(), *backend.list_runtime_tools())


def tools_of_runtime(engines: Iterable[Artefact]) -> tuple[str, ...]:
    """Return what the outputs of these engines depend on."""
    names = sorted({str(engine.facts["backend"]) for engine in engines})
    return tuple(tool for name in names for tool in BACKENDS.get(name)().list_runtime_tools())
