"""``lesiontk equalize``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from lesiontk.cli.compression import compress
from lesiontk.cli.session import Session, command_options


@click.command()
@click.argument("model", default="latest")
@command_options
def equalize(session: Session, model: str) -> None:
    """Spread the weights of MODEL (default: the latest) evenly over its channels.

    It answers as before; its int8 engines may lose less. Only layers with ReLU, pooling or padding
    between them can be equalized (cross-layer equalization).
    """
    compress(session, model, "equalize", {}, _describe)


def _describe(facts: Mapping[str, Any]) -> str:
    equalized = facts["equalized"]
    return (
        f"{equalized['pairs']} pairs of layers equalized; its answers differ by at most "
        f"{equalized['greatest_difference']:.1e}"
    )
