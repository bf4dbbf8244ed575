"""``lesiontk robustness``."""

from __future__ import annotations

from pathlib import Path

import click

from lesiontk.cli.session import Session, command_options, print_text, set_option
from lesiontk.data.corruptions import CORRUPTIONS


@click.command()
@click.argument("engine", default="latest")
@click.option(
    "--images",
    type=click.IntRange(min=20),
    help="Test images, balanced over the classes; default: the recipe's, else 300.",
)
@click.option(
    "--corruption",
    "corruptions",
    multiple=True,
    metavar="NAME",
    help=f"One of {', '.join(CORRUPTIONS)}; repeatable; default: all.",
)
@click.option(
    "--data",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder of the images; default: that of the training.",
)
@set_option
@command_options
def robustness(
    session: Session,
    engine: str,
    images: int | None,
    corruptions: tuple[str, ...],
    data: Path | None,
    overrides: tuple[str, ...],
) -> None:
    """Compare ENGINE with its float32 parent on corrupted test images.

    Default: the latest engine of reduced precision. Does compression cost more on pictures with
    hair, blur, JPEG artefacts, or in other light? Each corruption has three severities; the table
    shows the changes from clean images, in percentage points. Nothing is chosen from these images.
    An interrupted run continues.
    """
    from lesiontk.cli.tables import print_table
    from lesiontk.report.robustness_rows import COLUMNS, describe_shown, list_robustness_cells
    from lesiontk.workflow.robustness import resolve_comparable

    workspace = session.open_workspace()
    found = workspace.engine(resolve_comparable(workspace.store, engine)).robustness(
        images=images, corruptions=corruptions, data=data, set=overrides
    )

    def show() -> None:
        print_table(
            COLUMNS,
            list_robustness_cells(found.record),
            title=f"{found.artefact.name}: accuracy, corrupted − clean, in points; "
            "sensitivity and specificity: engine − parent",
        )
        print_text(found.caption)
        print_text(describe_shown(found.record))

    session.emit(found.document, show)
