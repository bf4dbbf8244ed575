"""``lesiontk doctor``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from lesiontk.cli.session import Session, command_options, print_text

if TYPE_CHECKING:
    from lesiontk.backends.execution import Execution
    from lesiontk.workflow.doctor import BackendFindings, MachineFindings, PrecisionFindings


@click.command()
@command_options
def doctor(session: Session) -> None:
    """Show the back ends that run on this machine and why others do not."""
    from lesiontk.workflow.doctor import examine_machine

    findings = examine_machine()
    session.emit(findings.to_document(), lambda: _show(findings))


def _show(findings: MachineFindings) -> None:
    machine = findings.machine
    print_text(f"lesiontk {findings.lesiontk}, Python {machine.python}")
    print_text(f"{machine.processor}, {machine.cores} cores, {machine.architecture}")
    print_text(findings.gpu)
    print_text(findings.int8)
    for backend in findings.backends:
        versions = ", ".join(f"{name} {version}" for name, version in backend.versions.items())
        more = f" ({versions})" if versions else ""
        print_text(f"\n{backend.name}: {_describe_state(backend)}{more}")
        for entry in backend.precisions:
            state = _describe_precision(entry, findings.int8) if backend.available else ""
            print_text(f"  {entry.precision:12} {state or 'not here'}")
        for part in backend.execution:
            print_text(f"  {part.kind} {_describe_execution(part)}")


def _describe_state(backend: BackendFindings) -> str:
    if not backend.available:
        return f"not here: {backend.reason}"
    if backend.runs:
        return "runs here"
    return (
        "does not run here; its graphs are made and checked, and "
        f"{backend.emulated_by} emulates their outputs"
    )


def _describe_precision(entry: PrecisionFindings, shown: str) -> str:
    """Return the state of a precision; `shown` is the sentence on int8 printed above."""
    how = "runs" if entry.runs else "emulated"
    note = "" if entry.note in ("", shown) else f". {entry.note}"
    if not entry.converts:
        return f"{how}; not made here: {entry.reason}{note}"
    return f"{how}, is made here{' after calibration' if entry.calibrated else ''}{note}"


def _describe_execution(part: Execution) -> str:
    from lesiontk.backends.execution import NOTHING

    more = f" ({part.detail})" if part.detail else ""
    if not part.fell_back:
        return f"{part.asked}: runs{more}"
    instead = "" if part.used == NOTHING else f", {part.used} runs instead"
    return f"{part.asked}: not here{instead}{more}"
