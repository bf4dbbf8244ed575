"""``lesiontk cluster``."""

from __future__ import annotations

import click

from lesiontk.cli.session import Session, command_options, set_option
from lesiontk.cli.tables import describe_effect


@click.command()
@click.argument("model", default="latest")
@click.option("--clusters", type=int, help="Different values of each kernel; default 32.")
@set_option
@command_options
def cluster(session: Session, model: str, clusters: int | None, overrides: tuple[str, ...]) -> None:
    """Let each kernel of MODEL (default: the latest) take a few values, and let it recover.

    Its file compresses better; it is as fast as before. Zeros of a sparse model stay. --set takes
    the technique's own keys, as recover.epochs=5.
    """
    from lesiontk.workflow import compress_model

    store = session.open_store()
    options = {"clusters": clusters}
    made = compress_model(store, store.resolve(model, "model"), "cluster", options, overrides)
    facts, scores = made.facts["clustered"], made.facts["validation"]
    text = (
        f"{made.name}: {facts['clusters']} values a kernel; "
        f"{describe_effect(made.facts['effect'])}; validation balanced accuracy "
        f"{scores['balanced_accuracy']:.3f} (n = {scores['n']})"
    )
    session.emit({"model": made.name, "path": str(made.path), **made.facts},
                 lambda: click.echo(text))  # fmt: skip
