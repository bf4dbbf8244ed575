"""The commands of single compressions, each generated from its technique."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import NoneType
from typing import Any, Literal, get_args, get_origin

import click
from pydantic import BaseModel

from lesiontk.cli.session import Session, command_options, print_text, set_option
from lesiontk.records import Footprint, ModelFacts
from lesiontk.technique import Technique, TechniqueInfo, find_technique


def name_command(technique: str) -> str:
    """Return ``load-weights`` for ``load_weights``."""
    return technique.replace("_", "-")


def make_command(name: str) -> click.Command:
    """Return the command that applies a technique to a model and prints the result."""
    technique = find_technique(name)
    info = technique.info
    keys = {key.replace(".", "_"): key for key in (info.argument, *info.options) if key}

    @set_option
    @command_options
    def apply(session: Session, model: str, overrides: tuple[str, ...], **given: Any) -> None:
        from lesiontk.workflow.choose_recipe import locate_file

        data = given.pop("data", None)
        options = _nest({keys[name]: locate_file(value) for name, value in given.items()})
        _compress(session, model, technique, options, overrides, data)

    text = f"{inspect.cleandoc(info.help)}\n\nMODEL is a reference; default: the latest."
    command = click.command(name_command(name), help=text)(apply)
    command.params[:0] = [*_name_model(info), *_list_options(info)]
    return command


def _name_model(info: TechniqueInfo) -> list[click.Parameter]:
    if not info.argument:
        return [click.Argument(["model"], default="latest")]
    help_ = "The parent of the new model."
    return [
        click.Argument([info.argument]),
        click.Option(["--model"], default="latest", show_default=True, help=help_),
    ]


def _list_options(info: TechniqueInfo) -> list[click.Parameter]:
    options = [_make_option(info.config, key, text) for key, text in info.options.items()]
    if info.reads_images:
        folder = click.Path(path_type=Path)
        options.append(click.Option(["--data"], type=folder, help="Current folder of the images."))
    return [*options]


def _make_option(config: type[BaseModel], key: str, text: str) -> click.Option:
    """Return the option of a config's key, such as ``train.epochs``, with its field's type.

    A key in a section is an option by its last name.
    """
    *sections, last = key.split(".")
    for section in sections:
        config = _type_of(config, section)
    kind = _type_of(config, last)
    several = get_origin(kind) is tuple
    kind = get_args(kind)[0] if several else kind
    return click.Option(
        [f"--{last.replace('_', '-')}", key.replace(".", "_")],
        type=click.Choice(get_args(kind)) if get_origin(kind) is Literal else kind,
        required=config.model_fields[last].is_required(),
        multiple=several,
        help=f"{text} Repeatable." if several else text,
    )


def _type_of(config: type[BaseModel], key: str) -> Any:
    """Return the type of a field, without None for an optional one."""
    kind = config.model_fields[key].annotation
    given = [part for part in get_args(kind) if part is not NoneType]
    return given[0] if NoneType in get_args(kind) else kind


def _nest(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the given options as a document, with ``train.epochs`` in its section."""
    document: dict[str, Any] = {}
    for key, value in options.items():
        if value is not None and value != ():
            *sections, last = key.split(".")
            node = document
            for section in sections:
                node = node.setdefault(section, {})
            node[last] = value
    return document


def _compress(
    session: Session,
    model: str,
    technique: Technique,
    options: Mapping[str, Any],
    overrides: Iterable[str],
    data: Path | None,
) -> None:
    """Apply a technique to the model of this name and print the result from its facts."""
    from lesiontk.workflow.compress import compress_model

    store = session.open_store()
    made = compress_model(
        store, store.resolve(model, "model"), technique.info.name, options, overrides, data=data
    )
    facts = made.read_facts(ModelFacts)
    scores = facts.validation
    parts = [
        technique.describe(facts),
        technique.advise(facts),
        _describe_footprint(facts.footprint),
        f"validation balanced accuracy {scores.balanced_accuracy:.3f} (n = {scores.n})",
    ]
    session.emit(
        {"model": made.name, "path": str(made.path), **facts.to_document()},
        lambda: print_text(f"{made.name}: {'; '.join(filter(None, parts))}"),
    )


def _describe_footprint(footprint: Footprint | None) -> str:
    """Return the change of the footprint against the parent, if measured."""
    if footprint is None:
        return ""
    from lesiontk.report.formatting import format_bytes

    before, after = footprint.before, footprint.after
    return (
        f"as {footprint.engine} {format_bytes(after.deflated_bytes)} deflated (before "
        f"{format_bytes(before.deflated_bytes)}), {after.median_ms:.2f} ms (before "
        f"{before.median_ms:.2f} ms, n = {footprint.n})"
    )
