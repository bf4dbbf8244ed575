"""``lesiontk report``."""

from __future__ import annotations

import click

from lesiontk.cli.session import Session, command_options, gate_option, print_text, set_option


@click.command()
@click.argument("model", default="latest")
@gate_option
@set_option
@command_options
def report(
    session: Session, model: str, overrides: tuple[str, ...], gates: tuple[str, ...]
) -> None:
    """Write one HTML file about MODEL (default: the latest) and its engines."""
    made = session.open_workspace().report(model, gates=gates, set=overrides)
    session.emit(
        {"report": str(made.file), "artefact": made.name},
        lambda: print_text(f"report: {made.file}"),
    )
