"""``lesiontk convert``."""

from __future__ import annotations

import click

from lesiontk.cli.engines import show_engines
from lesiontk.cli.session import Session, command_options, set_option


@click.command()
@click.argument("model", default="latest")
@click.option(
    "--to",
    "targets",
    multiple=True,
    required=True,
    metavar="BACKEND:PRECISION",
    help="As tflite:int8; repeatable. `lesiontk doctor` lists what there is.",
)
@set_option
@command_options
def convert(
    session: Session, model: str, targets: tuple[str, ...], overrides: tuple[str, ...]
) -> None:
    """Convert MODEL (default: the latest) and verify each engine against its parent."""
    from lesiontk.workflow import convert_model

    store = session.open_store()
    show_engines(session, convert_model(store, store.resolve(model, "model"), targets, overrides))
