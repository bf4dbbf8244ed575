"""The back ends that run on this machine, and why others do not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version

from lesiontk.backends import BACKENDS
from lesiontk.backends.backend import Backend
from lesiontk.backends.execution import Execution, name_emulator
from lesiontk.document import Record
from lesiontk.system.accelerators import explain_gpu
from lesiontk.system.machine import Machine, describe_machine, explain_int8, explain_precision


@dataclass(frozen=True, slots=True, kw_only=True)
class PrecisionFindings(Record):
    """Whether engines of a precision run and can be made here; if not, `reason` is why.

    `note` describes the support of the CPU; empty if the engines are for other machines.
    """

    precision: str
    runs: bool
    converts: bool
    reason: str
    calibrated: bool
    note: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendFindings(Record):
    """A back end's state; `runs` is False if another runtime emulates its engines."""

    name: str
    available: bool
    reason: str
    versions: Mapping[str, str]
    runs: bool
    emulated_by: str | None
    precisions: tuple[PrecisionFindings, ...]
    execution: tuple[Execution, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineFindings(Record):
    """The machine, sentences on its int8 support and its GPUs, and each back end."""

    lesiontk: str
    machine: Machine
    int8: str
    gpu: str
    backends: tuple[BackendFindings, ...]


def examine_machine() -> MachineFindings:
    """Return the machine, and for each back end its state, precisions and runtime.

    A runtime with providers or delegates is tested on a tiny graph, because a listed one does not
    always run.
    """
    machine = describe_machine()
    return MachineFindings(
        lesiontk=version("lesiontk"),
        machine=machine,
        int8=explain_int8(machine.int8_features, machine.architecture),
        gpu=explain_gpu(machine.accelerators),
        backends=tuple(_examine_backend(name, kind(), machine) for name, kind in _backends()),
    )


def _backends() -> list[tuple[str, type[Backend]]]:
    return list(BACKENDS.items())


def _examine_backend(name: str, backend: Backend, machine: Machine) -> BackendFindings:
    """Return the state of a back end; emulated engines do not count as running."""
    state = backend.available()
    execution = backend.examine_runtime() if state.available else ()
    emulator = name_emulator(execution)
    runs = state.available and emulator is None
    return BackendFindings(
        name=name,
        available=state.available,
        reason=state.reason,
        versions=state.versions,
        runs=runs,
        emulated_by=emulator,
        precisions=tuple(
            _examine_precision(f"{name}:{each}", machine, runs=runs)
            for each in backend.info.precisions
        ),
        execution=tuple(execution),
    )


def _examine_precision(target: str, machine: Machine, *, runs: bool) -> PrecisionFindings:
    """Return whether engines of a target can be made here, if not, why, and what the CPU does.

    There is no note on the CPU for engines of other machines.
    """
    name, _, precision = target.partition(":")
    info = BACKENDS.get(name).info
    lacking = explain_conversion(target)
    features, architecture = machine.int8_features, machine.architecture
    return PrecisionFindings(
        precision=precision,
        runs=runs,
        converts=lacking is None,
        reason=lacking or "",
        calibrated=info.precisions[precision].calibrated,
        note="" if info.opt_in else explain_precision(precision, features, architecture),
    )


def explain_conversion(target: str) -> str | None:
    """Return why a target cannot be made here, or None; the engines that it is derived from are
    required, too."""
    while target != "model":
        name, _, precision = target.partition(":")
        state = BACKENDS.get(name)().available()
        if not state.available:
            return f"{target}: {state.reason}"
        target = BACKENDS.get(name).info.precisions[precision].derived_from
    return None
