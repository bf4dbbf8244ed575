"""``lesiontk search``."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lesiontk.cli.session import (
    RecipeOptions,
    Session,
    command_options,
    print_text,
    recipe_options,
    workers_options,
)
from lesiontk.errors import UsageError, suggest

if TYPE_CHECKING:
    from lesiontk.api.search import Search
    from lesiontk.workflow.executor import WorkerOptions


logger = logging.getLogger(__name__)


class SearchGroup(click.Group):
    """A group whose command `run` is called by a file: ``lesiontk search space.yaml``."""

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        return self.commands["run"] if _is_space(name) else super().get_command(ctx, name)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in self.commands and not args[0].startswith("-"):
            if not _is_space(args[0]):
                known = list(self.commands)
                ctx.fail(
                    f"{args[0]!r} is neither a YAML file nor one of {', '.join(known)}."
                    f"{suggest(args[0], known)}"
                )
            args = ["run", *args]
        return super().resolve_command(ctx, args)


def _is_space(name: str) -> bool:
    return name.endswith((".yaml", ".yml"))


search_name = click.argument("name", required=False)
storage_option = click.option(
    "--storage",
    metavar="URL",
    help="Database that several machines share, such as postgresql://USER@HOST/NAME or "
    "mysql://USER@HOST/NAME; default: a file of the workspace.",
)


@click.group(cls=SearchGroup)
def search() -> None:
    """Search a space of recipes for the best engines under constraints.

    `lesiontk search SPACE.yaml --data DIR` runs or continues a search; `lesiontk search init`
    writes an example of a space.
    """


@search.command("run")
@click.argument("space", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--name", help="Name of the search; default: that of the file.")
@click.option("--trials", type=click.IntRange(min=1), help="Replace the space's number of trials.")
@storage_option
@workers_options
@recipe_options
@command_options
def run_command(
    session: Session,
    space: Path,
    name: str | None,
    trials: int | None,
    storage: str | None,
    workers: WorkerOptions,
    options: RecipeOptions,
) -> None:
    """Run or continue the search of SPACE, a YAML file.

    Candidates are compared on validation images; at the end the engines of the front are evaluated
    on the test images. The same command continues an interrupted search, with other workers, too.
    With --workers ray several trials run at once, on this machine or on a cluster.
    """
    if options.leaky:
        raise UsageError("a search cannot use a leaky split; expected no --allow-leaky-split.")
    done = session.open_workspace().search(
        space,
        name=name,
        data=options.data,
        accept_near_duplicates=options.accept_near_duplicates,
        trials=trials,
        storage=storage,
        workers=workers.workers,
        ray_address=workers.address,
        parallel=workers.parallel,
        set=options.overrides,
    )
    session.emit(done.document, lambda: _show(done))


@search.command("show")
@search_name
@storage_option
@command_options
def show_command(session: Session, name: str | None, storage: str | None) -> None:
    """Show the front of the search NAME (default: the last one), and write its page."""
    found = session.open_workspace().search(name=name, storage=storage)
    session.emit(found.document, lambda: _show(found))


@search.command("status")
@search_name
@storage_option
@command_options
def status_command(session: Session, name: str | None, storage: str | None) -> None:
    """Show how many trials of the search NAME are done, and which are running."""
    from lesiontk.search.result import count_states
    from lesiontk.workflow.search import open_search

    found = open_search(session.open_store(), name, storage)
    trials = found.study.list_trials()
    running = [trial for trial in trials if trial.state == "running"]
    states = count_states(trials)
    document = {
        "name": found.options.name,
        "counts": states,
        "trials": found.space.candidates,
        "running": [{"trial": trial.number, "host": trial.host} for trial in running],
    }

    def show() -> None:
        counts = ", ".join(f"{number} {state}" for state, number in states.items())
        print_text(f"{found.options.name}: {counts or 'no trial yet'}; of {found.space.candidates}")
        for trial in running:
            print_text(f"  trial {trial.number} on machine {trial.host}")

    session.emit(document, show)


@search.command("best")
@search_name
@click.option(
    "--under",
    multiple=True,
    metavar="CONSTRAINT",
    help='Further constraint, such as "p90_ms <= 5"; repeatable.',
)
@storage_option
@command_options
def best_command(
    session: Session, name: str | None, under: tuple[str, ...], storage: str | None
) -> None:
    """Print the best engine of the search NAME, for `lesiontk bundle`.

    It has the best first objective on validation of those that meet the constraints.
    """
    from lesiontk.report.search_words import describe_assignment, name_figure, show_figure

    found = session.open_workspace().search(name=name, storage=storage)
    trial = found.find(under)
    figures = found.record.figures(trial.number)
    shown = {name: figures.value(name) for name in found.measured}

    def show() -> None:
        print_text(figures.engine)
        words = [f"{name_figure(name)} {show_figure(name, v)}" for name, v in shown.items()]
        text = f"trial {trial.number}: {describe_assignment(trial.assignment)}; {', '.join(words)}"
        logger.info("%s", text)

    session.emit({"engine": figures.engine, "trial": trial.to_document()}, show)


@search.command("init")
@click.argument("file", type=click.Path(path_type=Path), default=Path("space.yaml"))
@command_options
def init_command(session: Session, file: Path) -> None:
    """Write a commented example of a search space to FILE (default: space.yaml)."""
    written = session.open_workspace().write_search_space(file)
    text = f"{written}\nedit it, then: lesiontk search {written} --data DIR"
    session.emit({"path": str(written)}, lambda: print_text(text))


def _show(found: Search) -> None:
    from lesiontk.cli.tables import print_table
    from lesiontk.report import search_words as words

    record = found.record
    print_text(words.describe_search(record))
    if record.front:
        rows = [
            [
                record.figures(number).engine,
                str(number),
                *(words.show_figure(name, record.figures(number).values.get(name))
                  for name in found.measured),
                words.describe_assignment(record.trial(number).assignment),
            ]
            for number in record.front
        ]  # fmt: skip
        print_table(["engine", "trial", *found.measured, "values"], rows)
    for winner in record.winners:
        print_text(words.describe_winner(winner))
    print_text(words.describe_readings(record))
    print_text(f"page: {found.page}")
