"""``lesiontk predict``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from lesiontk.cli.session import Session, command_options, print_text

NO_THRESHOLD = (
    "the engine contains no threshold, so there is no decision; specify --threshold, or use the "
    "file from a bundle of an evaluated engine"
)


@click.command()
@click.argument("engine")
@click.argument("images", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--threshold", type=click.FloatRange(0, 1),
              help="Summed probability from which an image is called positive; default: the one "
              "that was frozen on validation.")  # fmt: skip
@command_options
def predict(
    session: Session, engine: str, images: tuple[Path, ...], threshold: float | None
) -> None:
    """Classify IMAGES with ENGINE (a file or an artefact), and decide as a bundle does.

    A broken image does not stop the run; it is listed, and the exit code is 2.
    """
    from lesiontk.cli.tables import print_table
    from lesiontk.workflow.predict import predict_reference

    document = predict_reference(session.open_store(), engine, images, threshold)
    if document["operating_point"] is None:
        print_text(f"note: {NO_THRESHOLD}", err=True)
    if emulator := document.get("emulated_by"):
        print_text(
            f"note: {emulator} emulates the engine; its device may round differently", err=True
        )

    def show() -> None:
        print_table(*table_predictions(document))
        for prediction in document["predictions"]:
            for reason in prediction.get("input", {}).get("reasons", ()):
                print_text(f"{prediction['image']}: {reason}")
        print_text(document["notice"])

    session.emit(document, show)
    for failure in document["failures"]:
        print_text(f"error: {failure['message']}", err=True)
    if document["failures"]:
        raise click.exceptions.Exit(2)


def table_predictions(document: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Return columns and rows: class, probabilities, confidence, and decision if known."""
    labels, point = document["labels"], document["operating_point"]
    columns = ["image", "class", *labels]
    rows = [
        [p["image"], p["label"], *(f"{p['probabilities'][name]:.3f}" for name in labels)]
        for p in document["predictions"]
    ]
    if document["temperature"]:
        columns.append("confidence")
        for row, decided in zip(rows, document["predictions"], strict=True):
            row.append(f"{decided['confidence']:.3f}")
    if any("input" in prediction for prediction in document["predictions"]):
        columns.insert(1, "input")
        for row, decided in zip(rows, document["predictions"], strict=True):
            row.insert(1, decided["input"]["status"].replace("_", " "))
    if point:
        columns += [" + ".join(point["positive"]), f"at {point['threshold']:.4g}"]
        for row, decided in zip(rows, document["predictions"], strict=True):
            row += [f"{decided['score']:.3f}", "positive" if decided["positive"] else "negative"]
    return columns, rows
