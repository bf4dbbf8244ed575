"""``lesiontk sparsify``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from lesiontk.cli.compression import compress, describe_footprint, describe_validation
from lesiontk.cli.session import Session, command_options, set_option


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
    options = {"sparsity": sparsity, "pattern": pattern}
    compress(session, model, "sparsify", options, _describe, overrides)


def _describe(facts: Mapping[str, Any]) -> str:
    from lesiontk.report.wording import list_dense

    sparse = facts["sparsified"]
    return (
        f"{sparse['sparsity']:.1%} of the weights are zero ({sparse['pattern']})"
        f"{list_dense(sparse['dense'])}; "
        f"{describe_footprint(facts['effect'])}; {describe_validation(facts)}"
    )
