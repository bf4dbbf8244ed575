"""``lesiontk distill``."""

from __future__ import annotations

import click

from lesiontk.cli.compression import compress, describe_validation
from lesiontk.cli.session import Session, command_options, set_option


@click.command()
@click.argument("model", default="latest")
@click.option(
    "--teacher",
    metavar="NETWORK",
    required=True,
    help="An engine file, or a model or engine of the workspace, as latest:vgg16_7class; of the "
    "same split, of any architecture and size.",
)
@click.option("--temperature", type=float)
@click.option("--weight", type=float, help="Of the lessons beside the truth.")
@set_option
@command_options
def distill(
    session: Session,
    model: str,
    teacher: str,
    temperature: float | None,
    weight: float | None,
    overrides: tuple[str, ...],
) -> None:
    """Train MODEL (default: the latest) further with what TEACHER says of its training images.

    --set takes the technique's own keys, as train.epochs=8.
    """
    options = {"teacher": teacher, "temperature": temperature, "weight": weight}
    compress(session, model, "distill", options, describe_validation, overrides)
