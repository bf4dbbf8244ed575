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
    help="Such as tflite:int8; repeatable. `lesiontk doctor` lists all.",
)
@click.option(
    "--target",
    "devices",
    multiple=True,
    metavar="DEVICE",
    help="Also write the bundle for a device, like `lesiontk bundle`: linux-arm64, android, "
    "jetson-orin-jetpack6 or another; repeatable.",
)
@set_option
@command_options
def convert(
    session: Session,
    model: str,
    targets: tuple[str, ...],
    devices: tuple[str, ...],
    overrides: tuple[str, ...],
) -> None:
    """Convert MODEL (default: the latest) and verify each engine against its parent."""
    from lesiontk.deploy import find_bundle_target
    from lesiontk.workflow.bundle import bundle_engines
    from lesiontk.workflow.convert import convert_model

    for device in devices:
        find_bundle_target(device).choose(targets)  # before any work
    store = session.open_store()
    engines = convert_model(store, store.resolve(model, "model"), targets, overrides)
    show_engines(session, engines, bundle_engines(store, engines, devices))
