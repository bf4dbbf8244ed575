"""``lesiontk cluster``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from lesiontk.cli.compression import compress, describe_footprint, describe_validation
from lesiontk.cli.session import Session, command_options, set_option


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
    compress(session, model, "cluster", {"clusters": clusters}, _describe, overrides)


def _describe(facts: Mapping[str, Any]) -> str:
    return (
        f"{facts['clustered']['clusters']} values a kernel; "
        f"{describe_footprint(facts['effect'])}; {describe_validation(facts)}"
    )
