"""``lesiontk profile``."""

from __future__ import annotations

import click

from lesiontk.cli.session import Session, command_options, print_text


@click.command()
@click.argument("engine", default="latest")
@click.option("--rounds", type=click.IntRange(min=5), default=20, show_default=True,
              help="Rounds, in each of which every layer is timed.")  # fmt: skip
@click.option("--threads", type=click.IntRange(min=1), default=1, show_default=True,
              help="Threads of the engine.")  # fmt: skip
@command_options
def profile(session: Session, engine: str, rounds: int, threads: int) -> None:
    """Measure the latency of each layer of ENGINE (a file or an artefact).

    Default: the latest engine whose runtime times its layers here. The layers have the names of the
    Keras model, the slowest first: what to prune next. `lesiontk bench --set bench.per_layer=true`
    has them in the report.
    """
    from lesiontk.cli.tables import print_table
    from lesiontk.report.speed_table import LAYER_COLUMNS, describe_profile, list_layer_cells
    from lesiontk.workflow.profile import resolve_profiled

    workspace = session.open_workspace()
    chosen = workspace.engine(resolve_profiled(workspace.store, engine))
    found = chosen.profile(rounds=rounds, threads=threads)

    def show() -> None:
        print_table(LAYER_COLUMNS, list_layer_cells(found.record), title=found.record.engine)
        print_text(describe_profile(found.record))

    session.emit(found.document, show)
