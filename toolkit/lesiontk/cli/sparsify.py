"""``lesiontk sparsify``."""

from __future__ import annotations

import click

from lesiontk.cli.session import Session, command_options, set_option
from lesiontk.cli.tables import describe_effect


@click.command()
@click.argument("model", default="latest")
@click.option("--sparsity", type=float, metavar="SHARE", help="Share of zeros; default 0.75.")
@click.option("--pattern", type=click.Choice(["unstructured", "2:4", "block"]))
@set_option
@command_options
def sparsify(
    session: Session,
    model: str,
    sparsity: float | None,
    pattern: str | None,
    overrides: tuple[str, ...],
) -> None:
    """Zero the smallest weights of MODEL (default: the latest), and let it recover.

    The network keeps its shape: its file compresses better, and dense kernels are as fast as
    before. `lesiontk prune` removes work. --set takes the technique's own keys, as rounds=5.
    """
    from lesiontk.workflow import compress_model

    store = session.open_store()
    options = {"sparsity": sparsity, "pattern": pattern}
    made = compress_model(store, store.resolve(model, "model"), "sparsify", options, overrides)
    facts, scores = made.facts["sparsified"], made.facts["validation"]
    text = (
        f"{made.name}: {facts['sparsity']:.1%} of the weights are zero ({facts['pattern']}); "
        f"{describe_effect(made.facts['effect'])}; validation balanced accuracy "
        f"{scores['balanced_accuracy']:.3f} (n = {scores['n']})"
    )
    session.emit({"model": made.name, "path": str(made.path), **made.facts},
                 lambda: click.echo(text))  # fmt: skip
