"""``lesiontk report``."""

from __future__ import annotations

from pathlib import Path

import click

from lesiontk.cli.session import Session, command_options, gate_option, print_text, set_option


@click.command()
@click.argument("model", default="latest")
@click.option("--compare", nargs=2, metavar="A B",
              help="Compare two benchmarks instead; each is a benchmark, a report, a model, or "
              "latest:RECIPE.")  # fmt: skip
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path),
              help="With --compare: also write a file, .html, .md or .json.")  # fmt: skip
@gate_option
@set_option
@command_options
def report(
    session: Session,
    model: str,
    compare: tuple[str, str] | None,
    out: Path | None,
    overrides: tuple[str, ...],
    gates: tuple[str, ...],
) -> None:
    """Write one HTML file about MODEL (default: the latest) and its engines.

    The same content is beside it as JSON and Markdown, and all figures as CSV.
    """
    if compare:
        _compare(session, *compare, out)
        return
    if out is not None:
        raise click.UsageError("--out requires --compare A B; the report is in the workspace.")
    made = session.open_workspace().report(model, gates=gates, set=overrides)
    session.emit(
        {
            "report": str(made.file),
            "artefact": made.name,
            "exports": [str(path) for path in made.exports],
        },
        lambda: print_text(f"report: {made.file}"),
    )


def _compare(session: Session, a: str, b: str, out: Path | None) -> None:
    from lesiontk.cli.tables import print_table
    from lesiontk.report.side_by_side import (
        COLUMNS,
        describe_verdict,
        list_compared_cells,
        list_notes,
    )

    found = session.open_workspace().compare(a, b)
    if out is not None:
        found.write(out)

    def show() -> None:
        print_text(describe_verdict(found.record))
        for pair in found.record.engines:
            print_table(COLUMNS, list_compared_cells(pair), title=pair.engine)
        for note in list_notes(found.record):
            print_text(note)

    session.emit(found.document, show)
