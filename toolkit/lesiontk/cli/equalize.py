"""``lesiontk equalize``."""

from __future__ import annotations

import click

from lesiontk.cli.session import Session, command_options


@click.command()
@click.argument("model", default="latest")
@command_options
def equalize(session: Session, model: str) -> None:
    """Spread the weights of MODEL (default: the latest) evenly over its channels.

    It answers as before; its int8 engines may lose less. Only layers with ReLU, pooling or padding
    between them can be equalized (cross-layer equalization).
    """
    from lesiontk.workflow import compress_model

    store = session.open_store()
    made = compress_model(store, store.resolve(model, "model"), "equalize", {})
    facts = made.facts["equalized"]
    text = (
        f"{made.name}: {facts['pairs']} pairs of layers equalized; its answers differ by at most "
        f"{facts['greatest_difference']:.1e}"
    )
    session.emit({"model": made.name, "path": str(made.path), **made.facts},
                 lambda: click.echo(text))  # fmt: skip
