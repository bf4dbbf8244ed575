"""``lesiontk evaluate``."""

from __future__ import annotations

from pathlib import Path

import click

from lesiontk.cli.session import Session, command_options, set_option


@click.command()
@click.argument("engine", default="latest")
@click.option("--images", type=click.Path(exists=True, file_okay=False, path_type=Path),
              help="Folder to judge on, instead of the engine's own test split.")  # fmt: skip
@click.option("--labels", type=click.Path(exists=True, dir_okay=False, path_type=Path),
              help="HAM10000 metadata, ISIC one-hot or another CSV.")  # fmt: skip
@click.option("--include-seen", is_flag=True,
              help="Also judge on images that the engine was trained or validated on.")  # fmt: skip
@set_option
@command_options
def evaluate(
    session: Session,
    engine: str,
    images: Path | None,
    labels: Path | None,
    include_seen: bool,
    overrides: tuple[str, ...],
) -> None:
    """Judge ENGINE (a file or an artefact; default: the latest) ; intervals resample lesions."""
    from lesiontk.cli.tables import format_estimate, print_table
    from lesiontk.predict import evaluate_reference

    store = session.open_store()
    document = evaluate_reference(
        store, engine, images, labels, overrides, include_seen=include_seen
    )
    if seen := document.get("seen_images"):
        counts = ", ".join(f"{n} {side}" for side, n in seen.items())
        verb = "count" if include_seen else "are left out"
        click.echo(f"note: images of the engine's own split {verb}: {counts}", err=True)
    if document.get("split_known") is False:
        click.echo("note: the engine's own split is not known here; whether it was trained on "
                   "these images cannot be told", err=True)  # fmt: skip
    if document.get("lesion_ids_known") is False:
        click.echo("note: lesion ids are not known; every image counts as a lesion of its own and "
                   "the intervals are too narrow where lesions repeat", err=True)  # fmt: skip

    def show() -> None:
        rows = [[name, format_estimate(e)] for name, e in document["metrics"].items()]
        print_table(
            ["metric", f"value ({document['confidence']:.0%} interval)"],
            rows,
            title=f"{document['target']}: {document['n']} images of {document['lesions']} lesions",
        )
        names = document["labels"]
        counts = [[n, *map(str, r)] for n, r in zip(names, document["confusion"], strict=True)]
        print_table(["truth \\ answer", *names], counts)

    session.emit(document, show)
