"""``lesiontk load_weights``."""

from __future__ import annotations

from pathlib import Path

import click

from lesiontk.cli.compression import compress, describe_validation
from lesiontk.cli.session import Session, command_options


@click.command()
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--model", default="latest", show_default=True, help="Whose weights they are.")
@command_options
def load_weights(session: Session, file: Path, model: str) -> None:
    """Take into MODEL the weights of FILE: MODEL's own .keras file, trained further elsewhere.

    What MODEL is stays known, so that its engines are compared with the network that it was made
    of. `lesiontk convert MODEL --to keras:float32` writes the file that is to be trained.
    """
    options = {"file": str(file.resolve())}
    compress(session, model, "load_weights", options, describe_validation)
