"""``lesiontk distil``."""

from __future__ import annotations

from pathlib import Path

import click

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
    from lesiontk.workflow import compress_model

    store = session.open_store()
    options = {
        "teacher": str(teacher.resolve()),
        "temperature": temperature,
        "weight": weight,
    }
    made = compress_model(store, store.resolve(model, "model"), "distil", options, overrides)
    scores = made.facts["validation"]
    text = (
        f"{made.name}: validation balanced accuracy {scores['balanced_accuracy']:.3f} "
        f"(n = {scores['n']})"
    )
    session.emit({"model": made.name, "path": str(made.path), **made.facts},
                 lambda: click.echo(text))  # fmt: skip
