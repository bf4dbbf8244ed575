"""Write the reference pages from the code: recipe keys, commands, targets and registered names.

    python docs/generate.py [FOLDER]

FOLDER is `docs/reference` by default. `tests/test_docs.py` fails where a page is out of date.
"""

from __future__ import annotations

import inspect
import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, get_args

import click
from pydantic import BaseModel

from lesiontk.backends import BACKENDS
from lesiontk.calibration.observers import OBSERVERS
from lesiontk.cli.main import cli
from lesiontk.compress.importance import CRITERIA
from lesiontk.data.augment import AUGMENTATIONS
from lesiontk.data.corruptions import CORRUPTIONS, SEVERITIES
from lesiontk.data.enhance import ENHANCEMENTS
from lesiontk.data.fetch.sources import list_official_sources
from lesiontk.data.sources import SOURCES
from lesiontk.data.tasks import list_tasks, load_task
from lesiontk.deploy import BUNDLE_TARGETS, find_bundle_target
from lesiontk.evaluate.default_gates import expand_gates
from lesiontk.models import ARCHITECTURES
from lesiontk.models.architecture import Architecture
from lesiontk.recipe import Recipe, TrainSection, list_recipes, read_recipe
from lesiontk.recipe.gate_grammar import DEFAULT_GATES, DEVICE, gate_metrics
from lesiontk.registry import Registry
from lesiontk.technique import TECHNIQUES
from lesiontk.tracking import TRACKERS
from lesiontk.train.feature_losses import FEATURE_LOSSES
from lesiontk.train.imbalance import IMBALANCE

NOTE = "<!-- Written by docs/generate.py from the code; edit the code instead. -->"
COMMON = ("--workspace", "--shared", "--track", "--json", "--quiet", "--debug", "--help")
"""Options of every command, listed once."""


def main(folder: Path) -> None:
    """Write every page below `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in render_pages().items():
        (folder / name).write_text(text, encoding="utf-8")


def render_pages() -> dict[str, str]:
    """Return file name -> Markdown."""
    pages = {
        "recipe.md": recipe_page(),
        "commands.md": commands_page(),
        "targets.md": targets_page(),
        "names.md": names_page(),
    }
    return {name: f"{NOTE}\n\n{text.strip()}\n" for name, text in pages.items()}


def table(header: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Return a Markdown table; cells are one line each."""
    lines = [list(header)]
    lines += [["---"] * len(lines[0]), *map(list, rows)]
    cells = ([cell.replace("\n", " ").replace("|", " or ") for cell in line] for line in lines)
    return "\n".join(f"| {' | '.join(line)} |" for line in cells)


def code(value: object) -> str:
    return f"`{value}`"


def first_line(thing: Any) -> str:
    """Return the first paragraph of a docstring on one line."""
    return " ".join((inspect.getdoc(thing) or "").split("\n\n")[0].split()).replace("``", "`")


# Recipe keys


def recipe_page() -> str:
    """Return every section and key of a recipe, then those of each compression technique."""
    schema = Recipe.model_json_schema()
    parts = [
        "# Recipe keys",
        "A recipe is a YAML file. Unknown keys are errors. `lesiontk recipe show NAME` prints all "
        "keys of a recipe with their values, `--set section.key=value` overrides one.",
        "## Top level",
    ]
    plain = [name for name, field in Recipe.model_fields.items() if not section_of(field)]
    parts.append(key_table(key_rows(Recipe, schema, keys=plain)))
    for name, field in Recipe.model_fields.items():
        section = section_of(field)
        if section:
            parts += [f"## {name}", first_line(section)]
            parts.append(key_table(key_rows(section, schema, prefix=f"{name}.")))
    parts += [
        "## Compression techniques",
        "Each entry of `compress` is one technique with its keys, as "
        "`- prune: {keep_macs: 0.5, recover: {epochs: 8}}`. A section that trains (`train`, "
        "`recover`) takes the keys of [train](#train); what is not given there is the technique's "
        "default, or the recipe's `train` where that describes the data.",
    ]
    for name, config in techniques():
        parts += [f"### {name}", first_line(config)]
        rows = list(key_rows(config, config.model_json_schema()))
        parts.append(key_table(rows) if rows else "No keys.")
    return "\n\n".join(parts)


def techniques() -> Iterator[tuple[str, type[BaseModel]]]:
    for name, technique in TECHNIQUES.items():
        yield name, technique.info.config


def section_of(field: Any) -> type[BaseModel] | None:
    """Return the model of a field that is a section of its own, else None."""
    for option in (field.annotation, *get_args(field.annotation)):
        if isinstance(option, type) and issubclass(option, BaseModel):
            return option
    return None


def key_table(rows: Iterable[tuple[str, str, str, str]]) -> str:
    return table(("key", "default", "values", "meaning"), rows)


def key_rows(
    model: type[BaseModel],
    schema: Mapping[str, Any],
    prefix: str = "",
    keys: Iterable[str] | None = None,
) -> Iterator[tuple[str, str, str, str]]:
    """Yield key, default, values and meaning; keys of sections within follow with their path."""
    properties = find_schema(model, schema)["properties"]
    for name in model.model_fields if keys is None else keys:
        field, found = model.model_fields[name], properties[name]
        section = section_of(field)
        if section is TrainSection:
            yield f"`{prefix}{name}`", *training_cells(field)
        elif section:
            yield from key_rows(section, schema, f"{prefix}{name}.")
        else:
            default = "*required*" if field.is_required() else code(as_yaml(field.default))
            meaning = (field.description or "").replace("``", "`")
            yield f"`{prefix}{name}`", default, describe_values(found), meaning


def training_cells(field: Any) -> tuple[str, str, str]:
    """Return default, values and meaning of a section that takes the keys of `train`."""
    usual = TrainSection().model_dump()
    own = {k: v for k, v in field.default.model_dump().items() if v != usual[k]}
    default = ", ".join(f"{key}: {as_yaml(value)}" for key, value in own.items())
    optional = type(None) in get_args(field.annotation)
    values = "keys of `train`" + (", or null" if optional else "")
    return code(f"{{{default}}}"), values, field.description or "how it is trained"


def find_schema(model: type[BaseModel], schema: Mapping[str, Any]) -> Mapping[str, Any]:
    return schema if schema.get("title") == model.__name__ else schema["$defs"][model.__name__]


def as_yaml(value: Any) -> str:
    """Return a default as a recipe spells it."""
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(as_yaml, value))}]"
    return value if isinstance(value, str) and value else json.dumps(value)


BOUNDS = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
KINDS = {"integer": "whole number", "number": "number", "string": "text", "boolean": "true, false"}


def describe_values(found: Mapping[str, Any]) -> str:
    """Return what a key accepts, from its JSON schema."""
    if "enum" in found:
        return ", ".join(map(code, found["enum"]))
    if "const" in found:
        return code(found["const"])
    if "anyOf" in found:
        options = [describe_values(each) for each in found["anyOf"] if each.get("type") != "null"]
        return ", ".join([*options, "null"])
    if found.get("type") == "array":
        items = found.get("prefixItems") or [found.get("items", {})]
        count = f"{len(items)} of " if "prefixItems" in found else ""
        return f"list of {count}{describe_values(items[0])}"
    if found.get("type") == "object":
        return "mapping"
    bounds = [f"{sign} {found[key]}" for key, sign in BOUNDS.items() if key in found]
    return " ".join([KINDS[found["type"]], ", ".join(bounds)]).strip()


# Commands


def commands_page() -> str:
    """Return each command with its arguments, options and help."""
    parts = [
        "# Commands",
        "Every command takes the options in this table. Exit codes: 0 success, 1 a gate failed, 2 "
        "bad usage or input, 3 a missing requirement, 130 and 143 stopped by Ctrl-C or "
        "SIGTERM (the same command goes on).",
        "A MODEL is an artefact of the workspace: the latest one by default, `latest:RECIPE`, the "
        "beginning of a key, or a path.",
    ]
    with click.Context(cli, info_name="lesiontk") as context:
        shown = cli.get_command(context, "ls")
        assert shown is not None
        common = [option for option in shown.params if option.opts[0] in COMMON]
        parts.append(table(("option", "meaning"), option_rows(context, common)))
        for name in cli.list_commands(context):
            command = cli.get_command(context, name)
            assert command is not None
            parts += command_parts(command, name, context)
    return "\n\n".join(parts)


def command_parts(command: click.Command, name: str, parent: click.Context) -> Iterator[str]:
    """Yield the Markdown of a command, and of those below it."""
    context = click.Context(command, info_name=name, parent=parent)
    level = "#" * (2 + context.command_path.count(" ") - 1)
    yield f"{level} {context.command_path}"
    if not isinstance(command, click.Group):
        yield f"```text\n{' '.join(command.get_usage(context).split()[1:])}\n```"
    yield paragraphs(command.help or "")
    own = [p for p in command.params if isinstance(p, click.Option) and p.opts[0] not in COMMON]
    if own:
        yield table(("option", "meaning"), option_rows(context, own))
    if isinstance(command, click.Group):
        for below in command.list_commands(context):
            found = command.get_command(context, below)
            assert found is not None
            yield from command_parts(found, below, context)


def option_rows(
    context: click.Context, options: Iterable[click.Parameter]
) -> Iterator[tuple[str, str]]:
    for option in options:
        record = option.get_help_record(context)
        if record:
            yield code(record[0]), as_text(record[1])


def paragraphs(text: str) -> str:
    """Return a command's help as Markdown; lines that keep their form stay as they are."""
    blocks = inspect.cleandoc(text).split("\n\n")
    shown = []
    for block in blocks:
        lines = block.replace("\f", "").split("\n")
        if lines[0] == "\b":
            shown.append("```text\n" + "\n".join(lines[1:]) + "\n```")
        else:
            shown.append(as_text(" ".join(lines)))
    return "\n\n".join(shown)


def as_text(text: str) -> str:
    return text.replace("<", "&lt;").replace("[", "\\[").replace("*", "\\*")


# Targets


def targets_page() -> str:
    """Return the engines that can be made and the devices that bundles are for."""
    engines = [
        (
            code(f"{name}:{precision}"),
            code(backend.info.suffix),
            "the model" if kind.derived_from == "model" else code(kind.derived_from),
            "yes" if kind.calibrated else "no",
            code(kind.mixed) if kind.mixed else "",
        )
        for name, backend in BACKENDS.items()
        for precision, kind in backend.info.precisions.items()
    ]
    tools = [
        (
            code(name),
            first_line(backend),
            ", ".join(map(code, backend.info.tools)),
            "named" if backend.info.opt_in else "always",
        )
        for name, backend in BACKENDS.items()
    ]
    devices = [
        (code(name), ", ".join(map(code, target.engines)), target.python, first_line(type(target)))
        for name, target in ((name, find_bundle_target(name)) for name in BUNDLE_TARGETS)
    ]
    return "\n\n".join(
        [
            "# Targets",
            "## Engines",
            "For `lesiontk convert --to`, and `convert` in a recipe. A calibrated engine needs "
            "calibration images. `mixed` keeps the layers that int8 harms most in the precision of "
            "the last column.",
            table(("target", "file", "made from", "calibrated", "other layers"), engines),
            "## Back ends",
            "`lesiontk doctor` shows which of them run on a machine, and why others do not. "
            "`quantize --int8` makes an engine of each; of a back end whose engines are for other "
            "machines only if `--to` names it.",
            table(("back end", "what it does", "needs", "made"), tools),
            "## Bundles",
            "For `lesiontk bundle --target`, and `bundle` in a recipe. The first of the engines "
            "that is there is taken.",
            table(("device", "engines", "Python there", "what it is"), devices),
        ]
    )


# Registered names


def describe_weights(architecture: Architecture) -> str:
    """Return what `model.weights` may be, and where it comes from."""
    if architecture.load is None:
        return "none"
    package = architecture.weights_package
    return f"imagenet, of {code(package)}" if package else "imagenet, downloaded by Keras"


def names_page() -> str:
    """Return every name that a recipe or an option can give, by family."""
    parts = ["# Registered names", "Names that recipes and options take, by family."]
    parts += ["## Recipes", "For `lesiontk train`, `run`, `recipe show`."]
    recipes = ((name, read_recipe(name)) for name in list_recipes())
    parts.append(table(("recipe", "what it is"), ((code(n), r.description) for n, r in recipes)))
    parts += ["## Architectures", "`model.architecture`"]
    parts.append(
        table(
            ("name", "smallest image", "published weights"),
            (
                (code(name), f"{a.min_image_size} px", describe_weights(a))
                for name, a in ARCHITECTURES.items()
            ),
        )
    )
    parts += ["## Data sources", "`data.source`; `auto` recognizes the layout."]
    infos = ((name, source.info) for name, source in SOURCES.items())
    parts.append(
        table(
            ("name", "what it is", "layout"),
            ((code(name), info.description, info.layout) for name, info in infos),
        )
    )
    parts += ["## Downloads", "For `lesiontk data fetch`."]
    parts.append(
        table(
            ("name", "licence"),
            ((code(source.name), source.licence) for source in list_official_sources()),
        )
    )
    parts += ["## Tasks", "`data.task`, or a YAML file of your own (`lesiontk task new`)."]
    tasks = [load_task(name) for name in list_tasks()]
    parts.append(
        table(
            ("name", "labels", "critical", "positive"),
            (
                (
                    code(task.name),
                    ", ".join(map(code, task.labels)),
                    code(task.critical),
                    ", ".join(map(code, task.positive)),
                )
                for task in tasks
            ),
        )
    )
    families: tuple[tuple[str, str, Registry[Any]], ...] = (
        ("Enhancements", "`data.enhance`", ENHANCEMENTS),
        ("Augmentations", "`train.augment`", AUGMENTATIONS),
        ("Imbalance choices", "`train.imbalance`", IMBALANCE),
        ("Feature losses", "`distill.losses`", FEATURE_LOSSES),
        ("Pruning criteria", "`prune.criterion`", CRITERIA),
        ("Observers", "`calibration.observer`", OBSERVERS),
        ("Trackers", "`--track`", TRACKERS),
    )
    for title, key, registry in families:
        parts += [f"## {title}", key]
        told = registry.summarize()
        rows = ((code(name), told[name] or first_line(thing)) for name, thing in registry.items())
        parts.append(table(("name", "what it does"), rows))
    parts += ["## Corruptions", "`robustness.corruptions`, or `lesiontk robustness --corruption`."]
    parts.append(
        table(
            ("name", *(f"severity {severity}" for severity in SEVERITIES)),
            (
                (code(name), *(corruption.describe(severity) for severity in SEVERITIES))
                for name, corruption in CORRUPTIONS.items()
            ),
        )
    )
    parts += [
        "## Metrics of gates",
        "What a line of `gate`, or `--gate`, can name, by task; with the gates that `default` "
        "stands for. [Gates](../gates.md) explains them.",
    ]
    for task in tasks:
        metrics = [m for m in gate_metrics(task.labels, task.positive) if m not in DEVICE]
        gates = expand_gates([DEFAULT_GATES], task.positive)
        parts += [f"### {task.name}", ", ".join(map(code, metrics))]
        parts.append("Default: " + ", ".join(code(gate) for gate in gates))
    parts += ["### Any engine", ", ".join(f"`{name}` ({unit})" for name, unit in DEVICE.items())]
    return "\n\n".join(parts)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "reference")
