"""``lesiontk evaluate``."""

from __future__ import annotations

from pathlib import Path

import click

from lesiontk.cli.session import Session, command_options, gate_option, say, set_option


@click.command()
@click.argument("engine", default="latest")
@click.option("--images", type=click.Path(exists=True, file_okay=False, path_type=Path),
              help="Folder to judge on, instead of the engine's own test split.")  # fmt: skip
@click.option("--labels", type=click.Path(exists=True, dir_okay=False, path_type=Path),
              help="HAM10000 metadata, ISIC one-hot or another CSV.")  # fmt: skip
@click.option("--include-seen", is_flag=True,
              help="Also judge on images that the engine was trained or validated on.")  # fmt: skip
@click.option("--threshold", type=click.FloatRange(0, 1),
              help="Probability from which an image of --images is called positive; default: what "
              "was frozen on validation, 0.5 for a file that carries none.")  # fmt: skip
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path),
              help="Also write the engine to this new file, with threshold, temperature and these "
              "figures inside: it then suffices for predict, evaluate and bundle.")  # fmt: skip
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
    from lesiontk.bench.judging import require_gates
    from lesiontk.cli.tables import print_evaluation
    from lesiontk.evaluate.verdict import Unresolved, sort_verdicts
    from lesiontk.workflow.evaluate import (
        check_export,
        evaluate_reference,
        export_engine,
        list_notes,
        rules_from,
    )

    store = session.open_store()
    if out is not None:
        check_export(store, engine, images, out)
    evaluation = evaluate_reference(
        store,
        engine,
        images,
        labels,
        overrides,
        include_seen=include_seen,
        threshold=threshold,
        gates=gates,
    )
    if out is not None:
        export_engine(store, engine, out)
    for note in list_notes(evaluation):
        say(f"note: {note}", err=True)
    session.emit(evaluation.to_document(), lambda: print_evaluation(evaluation))
    if gates:
        require_gates(sort_verdicts(evaluation.gate), Unresolved(rules_from(overrides).unresolved))
