"""``lesiontk qat``."""

from __future__ import annotations

import click

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
    from lesiontk.workflow import compress_model

    store = session.open_store()
    changes = [*overrides, *([] if epochs is None else [f"train.epochs={epochs}"])]
    made = compress_model(store, store.resolve(model, "model"), "qat", {"scheme": scheme}, changes)
    before, scores = made.facts["qat"]["validation_before"], made.facts["validation"]
    text = (
        f"{made.name}: validation balanced accuracy {before['balanced_accuracy']:.3f} rounded "
        f"before, {scores['balanced_accuracy']:.3f} after (n = {scores['n']})"
    )
    session.emit({"model": made.name, "path": str(made.path), **made.facts},
                 lambda: click.echo(text))  # fmt: skip
