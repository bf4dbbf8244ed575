"""The tools on which artefacts of conversion or inference depend."""

from __future__ import annotations

from collections.abc import Iterable

from lesiontk.backends import BACKENDS, parse_target
from lesiontk.backends.engine_facts import EngineFacts
from lesiontk.records import Artefact


def tools_of_conversion(target: str) -> tuple[str, ...]:
    """Return the tools that make and run an engine ``backend:precision``."""
    backend = BACKENDS.get(parse_target(target)[0])()
    return (*backend.list_conversion_tools(), *backend.list_runtime_tools())


def tools_of_runtime(engines: Iterable[Artefact]) -> tuple[str, ...]:
    """Return the tools on which the outputs of these engines depend."""
    names = sorted({engine.read_facts(EngineFacts).backend for engine in engines})
    return tuple(tool for name in names for tool in BACKENDS.get(name)().list_runtime_tools())
