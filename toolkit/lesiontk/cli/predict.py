"""``lesiontk predict``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from lesiontk.cli.session import Session, command_options, print_text

if TYPE_CHECKING:
    from lesiontk.workflow.predict import Predictions

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

    found = predict_reference(session.open_store(), engine, images, threshold)
    if found.operating_point is None:
        print_text(f"note: {NO_THRESHOLD}", err=True)
    if found.emulated_by:
        print_text(
            f"note: {found.emulated_by} emulates the engine; its device may round differently",
            err=True,
        )

    def show() -> None:
        print_table(*table_predictions(found))
        for p in found.predictions:
            for reason in p.input.reasons if p.input else ():
                print_text(f"{p.image}: {reason}")
        print_text(found.notice)

    session.emit(found.to_document(), show)
    for failure in found.failures:
        print_text(f"error: {failure.message}", err=True)
    if found.failures:
        raise click.exceptions.Exit(2)


def table_predictions(found: Predictions) -> tuple[list[str], list[list[str]]]:
    """Return columns and rows: class, probabilities, confidence, and decision if known."""
    point = found.operating_point
    columns = ["image", "class", *found.labels]
    if found.temperature:
        columns.append("confidence")
    if any(p.input for p in found.predictions):
        columns.insert(1, "input")
    if point:
        columns += [" + ".join(point.positive), f"at {point.threshold:.4g}"]
    rows = []
    for p in found.predictions:
        row = [p.image, *([p.input.status.replace("_", " ")] if p.input else []), p.label]
        row += [f"{p.probabilities[name]:.3f}" for name in found.labels]
        row += [f"{value:.3f}" for value in (p.confidence, p.score) if value is not None]
        if p.positive is not None:
            row.append("positive" if p.positive else "negative")
        rows.append(row)
    return columns, rows
