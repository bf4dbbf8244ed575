"""``lesiontk predict``."""

from __future__ import annotations

from pathlib import Path

import click

from lesiontk.cli.session import Session, command_options


@click.command()
@click.argument("engine")
@click.argument("images", nargs=-1, required=True, type=click.Path(path_type=Path))
@command_options
def predict(session: Session, engine: str, images: tuple[Path, ...]) -> None:
    """Give the class probabilities of IMAGES by ENGINE (a file or an artefact).

    A broken image does not end the run; it is listed, and the exit code is 2.
    """
    from lesiontk.cli.tables import print_table
    from lesiontk.predict import predict_pictures
    from lesiontk.relatives import locate_engine

    document = predict_pictures(locate_engine(session.open_store(), engine), images)

    def show() -> None:
        labels = document["labels"]
        rows = [
            [p["image"], p["label"], *(f"{p['probabilities'][n]:.3f}" for n in labels)]
            for p in document["predictions"]
        ]
        print_table(["image", "class", *labels], rows)
        click.echo(document["notice"])

    session.emit(document, show)
    for failure in document["failures"]:
        click.echo(f"error: {failure['message']}", err=True)
    if document["failures"]:
        raise click.exceptions.Exit(2)
