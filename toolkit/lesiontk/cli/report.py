"""``lesiontk report``."""

from __future__ import annotations

import click

from lesiontk.cli.session import Session, add_gates, command_options, gate_option, say, set_option


@click.command()
@click.argument("model", default="latest")
@gate_option
@set_option
@command_options
def report(
    session: Session, model: str, overrides: tuple[str, ...], gates: tuple[str, ...]
) -> None:
    """Write one HTML file about MODEL (default: the latest) and its engines."""
    from lesiontk.workflow.benchmark import report_model

    store = session.open_store()
    artefact = report_model(store, store.resolve(model, "model"), add_gates(overrides, gates))
    path = artefact.file("report.html")
    session.emit({"report": str(path), "artefact": artefact.name}, lambda: say(f"report: {path}"))
