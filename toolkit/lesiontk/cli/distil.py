"""``lesiontk distil``."""

from __future__ import annotations

from pathlib import Path

import click

from lesiontk.cli.compression import compress, describe_validation
from lesiontk.cli.session import Session, command_options, set_option


@click.command()
@click.argument("model", default="latest")
@click.option(
    "--teacher",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    required=True,
    help="An engine file of the same split, of any architecture and size.",
)
@click.option("--temperature", type=float)
@click.option("--weight", type=float, help="Of the lessons beside the truth.")
@set_option
@command_options
def distil(
    session: Session,
    model: str,
    teacher: Path,
    temperature: float | None,
    weight: float | None,
    overrides: tuple[str, ...],
) -> None:
    """Train MODEL (default: the latest) further with what TEACHER says of its training images.

    --set takes the technique's own keys, as train.epochs=8.
    """
    options = {
        "teacher": str(teacher.resolve()),
        "temperature": temperature,
        "weight": weight,
    }
    compress(session, model, "distil", options, describe_validation, overrides)
