"""``lesiontk prune``."""

from __future__ import annotations

import click

from lesiontk.cli.session import Session, command_options, set_option


@click.command()
@click.argument("model", default="latest")
@click.option("--keep-macs", type=float, metavar="SHARE", help="Share of the operations to keep.")
@click.option("--keep-parameters", type=float, metavar="SHARE", help="Share of the parameters.")
@click.option("--keep-latency", type=float, metavar="SHARE", help="Share of the measured latency.")
@click.option("--criterion", metavar="NAME", help="taylor (default), l1, l2, geometric_median, …")
@click.option("--iterations", type=int, help="Rounds of removing and recovering; default 1.")
@set_option
@command_options
def prune(
    session: Session,
    model: str,
    keep_macs: float | None,
    keep_parameters: float | None,
    keep_latency: float | None,
    criterion: str | None,
    iterations: int | None,
    overrides: tuple[str, ...],
) -> None:
    """Remove the least important channels of MODEL (default: the latest), and let it recover.

    What is left is a smaller network, faster on any device. --set takes the technique's own keys,
    as recover.epochs=8 or multiple=16.
    """
    from lesiontk.workflow import compress_model

    store = session.open_store()
    options = {
        "keep_macs": keep_macs,
        "keep_parameters": keep_parameters,
        "keep_latency": keep_latency,
        "criterion": criterion,
        "iterations": iterations,
    }
    made = compress_model(store, store.resolve(model, "model"), "prune", options, overrides)
    facts, scores = made.facts["pruned"], made.facts["validation"]
    before, after = facts["macs"]
    text = (
        f"{made.name}: {after / before:.1%} of {before / 1e6:,.0f} million MACs and "
        f"{facts['parameters'][1] / facts['parameters'][0]:.1%} of the parameters are left; "
        f"validation balanced accuracy {scores['balanced_accuracy']:.3f} (n = {scores['n']})"
    )
    session.emit({"model": made.name, "path": str(made.path), **made.facts},
                 lambda: click.echo(text))  # fmt: skip
