"""What this machine can run, and why not the rest."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lesiontk import __version__
from lesiontk.backends import BACKENDS
from lesiontk.backends.backend import Backend
from lesiontk.bench.accelerators import explain_gpu
from lesiontk.bench.machine import describe_machine, explain_int8, explain_precision


def examine_machine() -> dict[str, Any]:
    """Return the machine, and for each back end its state, precisions and what its runtime does.

    A runtime that has providers or delegates is tried on a tiny graph: what it lists is not always
    what runs.
    """
    machine = describe_machine()
    return {
        "lesiontk": __version__,
        "machine": machine,
        "int8": explain_int8(machine["int8_features"], machine["architecture"]),
        "gpu": explain_gpu(machine["accelerators"]),
        "backends": [_examine_backend(name, backend(), machine) for name, backend in _backends()],
    }


def _backends() -> list[tuple[str, type[Backend]]]:
    return list(BACKENDS.items())


def _examine_backend(name: str, backend: Backend, machine: Mapping[str, Any]) -> dict[str, Any]:
    state = backend.available()
    return {
        "name": name,
        "available": state.available,
        "reason": state.reason,
        "versions": dict(state.versions),
        "precisions": [
            _examine_precision(f"{name}:{each}", machine) for each in backend.info.precisions
        ],
        "execution": (
            [part.to_json() for part in backend.examine_runtime()] if state.available else []
        ),
    }


def _examine_precision(target: str, machine: Mapping[str, Any]) -> dict[str, Any]:
    """Return whether engines of a target run here and can be made here, and if not, why."""
    name, _, precision = target.partition(":")
    state = BACKENDS.get(name)().available()
    lacking = explain_conversion(target)
    note = explain_precision(precision, machine["int8_features"], machine["architecture"])
    return {
        "precision": precision,
        "runs": state.available,
        "converts": lacking is None,
        "reason": lacking or "",
        "calibrated": BACKENDS.get(name).info.precisions[precision].calibrated,
        "note": note,
    }


def explain_conversion(target: str) -> str | None:
    """Return why a target cannot be made here, or None: what it is derived from is needed too."""
    while target != "model":
        name, _, precision = target.partition(":")
        state = BACKENDS.get(name)().available()
        if not state.available:
            return f"{target}: {state.reason}"
        target = BACKENDS.get(name).info.precisions[precision].derived_from
    return None
