"""``lesiontk bench``."""

from __future__ import annotations

import click

from lesiontk.cli.session import Session, add_gates, command_options, gate_option, set_option


@click.command()
@click.argument("engines", nargs=-1)
@click.option("--model", default="latest", help="Whose engines to compare.", show_default=True)
@click.option("--fresh", is_flag=True, help="Time again although an equal benchmark exists.")
@gate_option
@set_option
@command_options
def bench(
    session: Session,
    engines: tuple[str, ...],
    model: str,
    fresh: bool,
    overrides: tuple[str, ...],
    gates: tuple[str, ...],
) -> None:
    """Time engines one image at a time and show their accuracy beside the parent's.

    Without ENGINE: all engines of the model. ENGINE may be an artefact (`lesiontk ls`) or an
    engine file; of files that are not in the workspace, latency, size and memory are measured.
    """
    from lesiontk.cli.tables import print_benchmark
    from lesiontk.judging import check_gates
    from lesiontk.workflow import benchmark_references

    store = session.open_store()
    overrides = add_gates(overrides, gates)
    document, _ = benchmark_references(store, engines, model, overrides, fresh=fresh)
    session.emit(document, lambda: print_benchmark(document))
    check_gates(document)
