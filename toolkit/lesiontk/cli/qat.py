"""``lesiontk qat``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from lesiontk.cli.compression import compress
from lesiontk.cli.session import Session, command_options, set_option


@click.command()
@click.argument("model", default="latest")
@click.option("--scheme", type=click.Choice(["tflite", "tensorrt"]), help="Default: tflite.")
@click.option("--epochs", type=int)
@set_option
@command_options
def qat(
    session: Session,
    model: str,
    scheme: str | None,
    epochs: int | None,
    overrides: tuple[str, ...],
) -> None:
    """Train MODEL (default: the latest) on with int8's rounding in the loop.

    `lesiontk quantize --int8` then makes its engines with the ranges it has learned. The scheme
    tflite rounds as TFLite and ONNX Runtime do, tensorrt as TensorRT does. --set takes the
    technique's own keys, as train.learning_rate=0.0001.
    """
    changes = [*overrides, *([] if epochs is None else [f"train.epochs={epochs}"])]
    compress(session, model, "qat", {"scheme": scheme}, _describe, changes)


def _describe(facts: Mapping[str, Any]) -> str:
    before, after = facts["qat"]["validation_before"], facts["validation"]
    return (
        f"validation balanced accuracy {before['balanced_accuracy']:.3f} rounded before, "
        f"{after['balanced_accuracy']:.3f} after (n = {after['n']})"
    )
