"""``lesiontk evaluate``."""

from __future__ import annotations

from pathlib import Path

import click

from lesiontk.cli.session import Session, command_options, gate_option, print_text, set_option


@click.command()
@click.argument("engine", default="latest")
@click.option("--images", type=click.Path(exists=True, file_okay=False, path_type=Path),
              help="Folder of images to use instead of the engine's test split.")  # fmt: skip
@click.option("--labels", type=click.Path(exists=True, dir_okay=False, path_type=Path),
              help="HAM10000 metadata, ISIC one-hot or another CSV.")  # fmt: skip
@click.option("--include-seen", is_flag=True,
              help="Also use images that the engine was trained or validated on.")  # fmt: skip
@click.option("--threshold", type=click.FloatRange(0, 1),
              help="Probability from which an image of --images is positive; default: the "
              "threshold frozen on validation, else 0.5.")  # fmt: skip
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path),
              help="Also write the engine to this new file, with threshold, temperature and these "
              "results, for predict, evaluate and bundle.")  # fmt: skip
@gate_option
@set_option
@command_options
def evaluate(
    session: Session,
    engine: str,
    images: Path | None,
    labels: Path | None,
    include_seen: bool,
    threshold: float | None,
    out: Path | None,
    overrides: tuple[str, ...],
    gates: tuple[str, ...],
) -> None:
    """Evaluate ENGINE (a file or an artefact; default: the latest); intervals resample lesions."""
    from lesiontk.api.engine import Engine
    from lesiontk.cli.tables import print_evaluation

    found = Engine(session.open_workspace(), engine).evaluate(
        images,
        labels,
        threshold=threshold,
        include_seen=include_seen,
        gates=gates,
        out=out,
        set=overrides,
    )
    for note in found.notes:
        print_text(f"note: {note}", err=True)
    session.emit(found.document, lambda: print_evaluation(found.record))
    found.check_gates()
