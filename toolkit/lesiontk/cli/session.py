"""Common options, workspace and output of all commands."""

from __future__ import annotations

import functools
import json
import logging
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lesiontk.errors import escape_controls

if TYPE_CHECKING:
    from lesiontk.api.workspace import Workspace
    from lesiontk.recipe import Recipe
    from lesiontk.store import Store


def print_text(text: object, *, err: bool = False) -> None:
    """Print a text; control characters, as in a file's name, are escaped."""
    click.echo(escape_controls(str(text)), err=err)


class _Formatter(logging.Formatter):
    """A formatter of the message alone, escaped as by `print_text`."""

    def format(self, record: logging.LogRecord) -> str:
        return escape_controls(super().format(record))


@dataclass(frozen=True, slots=True)
class Session:
    """One call of a command."""

    workspace: Path
    shared: str | None
    track: str | None
    as_json: bool

    def open_store(self) -> Store:
        """Return the store of the workspace, with progress bars on a terminal."""
        return self.open_workspace().store

    def open_workspace(self) -> Workspace:
        """Return the workspace as the Python interface has it."""
        from lesiontk.api.workspace import Workspace

        return Workspace(self.workspace, shared=self.shared, track=self.track)

    def emit(self, document: Any, show: Callable[[], None]) -> None:
        """Print the document as JSON, or call `show`."""
        if self.as_json:
            click.echo(json.dumps(document, indent=1, default=str, allow_nan=False))
        else:
            show()


def command_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of workspace, output and log; the command gets a `Session` first."""

    @click.option(
        "--workspace",
        type=click.Path(file_okay=False, path_type=Path),
        default=Path("lesiontk-workspace"),
        envvar="LESIONTK_WORKSPACE",
        show_default=True,
        show_envvar=True,
        help="Folder of the artefacts.",
    )
    @click.option(
        "--shared",
        metavar="URL",
        envvar="LESIONTK_SHARED",
        show_envvar=True,
        help="Fetch artefacts from, and copy them to, s3://BUCKET/PREFIX or file:///FOLDER; they "
        "include the prepared images.",
    )
    @click.option(
        "--track",
        metavar="TRACKER",
        envvar="LESIONTK_TRACK",
        show_envvar=True,
        help="Record models, engines, benchmarks and searches in a tracker, such as mlflow: their "
        "figures and hashes, no image.",
    )
    @click.option("--json", "as_json", is_flag=True, help="One JSON document on standard output.")
    @click.option("--quiet", is_flag=True, help="Only warnings and errors on standard error.")
    @click.option("--debug", is_flag=True, help="Log more; show tracebacks.")
    @functools.wraps(function)
    def wrapped(
        workspace: Path,
        shared: str | None,
        track: str | None,
        as_json: bool,
        quiet: bool,
        debug: bool,
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        level = logging.DEBUG if debug else logging.WARNING if quiet else logging.INFO
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(_Formatter("%(message)s"))
        log = logging.getLogger("lesiontk")
        log.handlers[:] = [handler]
        log.setLevel(level)
        log.propagate = False
        return function(Session(workspace, shared, track, as_json), *args, **kwargs)

    return wrapped


def set_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add --set section.key=value."""
    return click.option(
        "--set",
        "overrides",
        multiple=True,
        metavar="SECTION.KEY=VALUE",
        help="Override a key of the recipe, such as train.epochs=3; repeatable.",
    )(function)


def gate_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add --gate LINE, repeatable; the command gets `gates`."""
    return click.option(
        "--gate",
        "gates",
        multiple=True,
        metavar="GATE",
        help='Replace the recipe\'s gates, such as "macro_auc >= parent - 0.01 @ 0.95" or '
        '"p90_ms <= 20"; default expands to those of the task; repeatable.',
    )(function)


@dataclass(frozen=True, slots=True)
class RecipeOptions:
    """The changes of a recipe by a command's options."""

    data: Path | None = None
    weights: str | None = None
    leaky: bool = False
    accept_near_duplicates: bool = False
    overrides: tuple[str, ...] = ()


def recipe_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add --data, options of the split, and --set; the command gets `RecipeOptions`."""

    @click.option(
        "--data",
        type=click.Path(exists=True, file_okay=False, path_type=Path),
        help="Folder of images and their table.",
    )
    @click.option(
        "--accept-near-duplicates",
        is_flag=True,
        help="Split near-duplicates as if they were different images.",
    )
    @click.option(
        "--allow-leaky-split",
        "leaky",
        is_flag=True,
        help="Split by image instead of lesion, to see how much that inflates scores; makes "
        "float32 engines only.",
    )
    @set_option
    @functools.wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        names = ("data", "weights", "leaky", "accept_near_duplicates", "overrides")
        given = {name: kwargs.pop(name) for name in names if name in kwargs}
        options = RecipeOptions(**given)
        return function(*args, options=options, **kwargs)

    return wrapped


weights_option = click.option(
    "--weights", metavar="imagenet|none|FILE", help="Initial weights of the network."
)
"""For commands that train, below `recipe_options`."""


def workers_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add --workers, --ray-address and --parallel; the command gets `WorkerOptions`."""

    @click.option(
        "--workers",
        type=click.Choice(["local", "ray"]),
        default="local",
        show_default=True,
        help="Run in this process, or several at once as tasks of Ray.",
    )
    @click.option(
        "--ray-address",
        metavar="HOST:PORT",
        help="Cluster of Ray that this machine has joined, or auto; default: this machine alone.",
    )
    @click.option(
        "--parallel",
        type=click.IntRange(min=1),
        metavar="N",
        help="Trials, folds or recipes at once with Ray; default: one for two cores.",
    )
    @functools.wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        from lesiontk.workflow.executor import WorkerOptions

        workers = WorkerOptions(
            kwargs.pop("workers"), kwargs.pop("ray_address"), kwargs.pop("parallel")
        )
        return function(*args, workers=workers, **kwargs)

    return wrapped


def load_recipe(name: str, options: RecipeOptions) -> Recipe:
    """Return the recipe with the options applied; --set has precedence."""
    from lesiontk.workflow.choose_recipe import choose_recipe

    return choose_recipe(
        name,
        data=options.data,
        weights=options.weights,
        accept_near_duplicates=options.accept_near_duplicates,
        leaky=options.leaky,
        overrides=options.overrides,
    )
