"""What this machine can run, and why not the rest."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

from lesiontk.backends import BACKENDS
from lesiontk.backends.backend import Backend
from lesiontk.backends.execution import name_emulator
from lesiontk.system.accelerators import explain_gpu
from lesiontk.system.machine import Machine, describe_machine, explain_int8, explain_precision


def examine_machine() -> dict[str, Any]:
    """Return the machine, and for each back end its state, precisions and what its runtime does.

    A runtime that has providers or delegates is tried on a tiny graph: what it lists is not always
    what runs.
    """
    machine = describe_machine()
    return {
        "lesiontk": version("lesiontk"),
        "machine": machine.to_document(),
        "int8": explain_int8(machine.int8_features, machine.architecture),
        "gpu": explain_gpu(machine.accelerators),
        "backends": [_examine_backend(name, backend(), machine) for name, backend in _backends()],
    }


def _backends() -> list[tuple[str, type[Backend]]]:
    return list(BACKENDS.items())


def _examine_backend(name: str, backend: Backend, machine: Machine) -> dict[str, Any]:
    """Return what is known of a back end; its engines do not run where another runtime answers."""
    state = backend.available()
    execution = backend.examine_runtime() if state.available else ()
    emulator = name_emulator(execution)
    runs = state.available and emulator is None
    return {
        "name": name,
        "available": state.available,
        "reason": state.reason,
        "versions": dict(state.versions),
        "runs": runs,
        "emulated_by": emulator,
        "precisions": [
            _examine_precision(f"{name}:{each}", machine, runs=runs)
            for each in backend.info.precisions
        ],
        "execution": [part.to_document() for part in execution],
    }


def _examine_precision(target: str, machine: Machine, *, runs: bool) -> dict[str, Any]:
    """Return whether engines of a target can be made here, if not, why, and what the CPU does.

    Nothing is noted of the CPU where engines are for other machines.
    """
    name, _, precision = target.partition(":")
    info = BACKENDS.get(name).info
    lacking = explain_conversion(target)
    features, architecture = machine.int8_features, machine.architecture
    return {
        "precision": precision,
        "runs": runs,
        "converts": lacking is None,
        "reason": lacking or "",
        "calibrated": info.precisions[precision].calibrated,
        "note": "" if info.opt_in else explain_precision(precision, features, architecture),
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
