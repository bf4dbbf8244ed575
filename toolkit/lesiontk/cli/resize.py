"""``lesiontk resize``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from lesiontk.cli.compression import compress, describe_validation
from lesiontk.cli.session import Session, command_options, set_option


@click.command()
@click.argument("model", default="latest")
@click.option("--image-size", type=int, required=True, metavar="PIXELS", help="Of each side.")
@click.option("--data", type=click.Path(path_type=Path), help="Where the images lie now.")
@set_option
@command_options
def resize(
    session: Session,
    model: str,
    image_size: int,
    data: Path | None,
    overrides: tuple[str, ...],
) -> None:
    """Give MODEL (default: the latest) smaller images, and let it recover.

    They are read anew from the folder that the model was trained on, or from --data. Its operations
    shrink with their square, its file does not: `lesiontk prune` may follow. --set takes the
    technique's own keys, as recover.epochs=5; recover=null leaves recovering to what follows.
    """
    compress(session, model, "resize", {"image_size": image_size}, _describe, overrides, data)


def _describe(facts: Mapping[str, Any]) -> str:
    resized = facts["resized"]
    (size, smaller), (before, after) = resized["image_size"], resized["macs"]
    return (
        f"{smaller} px instead of {size}, {after / before:.1%} of {before / 1e6:,.0f} million MACs "
        f"are left; {describe_validation(facts)}"
    )
