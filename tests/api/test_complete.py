"""What the command line can do, Python can do: each command and option has its counterpart."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

import click
import pytest

import lesiontk
from lesiontk.api.search import Search
from lesiontk.cli.main import cli
from lesiontk.technique import TECHNIQUES

WORKSPACE, MODEL, ENGINE = lesiontk.Workspace, lesiontk.Model, lesiontk.Engine
COUNTERPARTS: dict[str, Any] = {
    "doctor": lesiontk.examine_machine,
    "data fetch": lesiontk.fetch_data,
    "data check": WORKSPACE.check_data,
    "data split": WORKSPACE.split,
    "calibration draw": WORKSPACE.draw_calibration,
    "calibration show": WORKSPACE.describe_calibration,
    "calibration check": WORKSPACE.check_calibration,
    "calibration stability": MODEL.stability,
    "train": WORKSPACE.train,
    "import": WORKSPACE.import_model,
    "encoder": WORKSPACE.fit_encoder,
    "sensitivity": MODEL.sensitivity,
    "robustness": ENGINE.robustness,
    "input-checks": ENGINE.fit_input_checks,
    "quantize": MODEL.quantize,
    "convert": MODEL.convert,
    "build": ENGINE.build,
    "evaluate": ENGINE.evaluate,
    "bench": WORKSPACE.bench,
    "profile": ENGINE.profile,
    "gate power": WORKSPACE.gate_power,
    "report": WORKSPACE.report,
    "bundle": WORKSPACE.bundle,
    "check": ENGINE.check_tensorrt,
    "predict": ENGINE.predict,
    "run": WORKSPACE.run_all,
    "demo": WORKSPACE.run,
    "search run": WORKSPACE.search,
    "search show": WORKSPACE.search,
    "search status": WORKSPACE.search,
    "search best": Search.best,
    "search init": WORKSPACE.write_search_space,
    "verify": WORKSPACE.verify,
    "lineage": WORKSPACE.lineage,
    "ls": WORKSPACE.ls,
    "recipe list": lesiontk.list_recipes,
    "recipe show": lesiontk.read_recipe,
    "recipe new": WORKSPACE.new_recipe,
    "task list": lesiontk.list_tasks,
    "task new": WORKSPACE.new_task,
}
COMMON = {"workspace", "shared", "track", "as_json", "quiet", "debug", "help"}
RENAMED = {
    "overrides": "set",
    "list_": "reference",
    "data_folder": "data",
    "leaky": "allow_leaky_split",
    "resume": "restart",
}
OTHERWISE = {
    ("recipe show", "set"): "name_or_path",  # read_recipe(name, overrides)
    ("recipe show", "name"): "name_or_path",
    ("sensitivity", "backend"): "backend",
    ("quantize", "int8"): "precisions",
    ("quantize", "mixed"): "precisions",
    ("convert", "devices"): "targets",  # Model.bundle
    ("check", "verbose"): "self",  # the report has every node
    ("check", "model"): "self",
    ("run", "dry_run"): "recipes",  # Workspace.plan
    ("train", "seeds"): "recipe",  # Workspace.compare_seeds
    ("run", "folds"): "recipes",  # Workspace.cross_validate
    ("verify", "public_key"): "reference",  # Bundle.verify
    ("evaluate", "engine"): "self",
    ("robustness", "engine"): "self",
    ("report", "compare"): "model",  # Workspace.compare(a, b).write(out)
    ("report", "out"): "model",
    ("input-checks", "engine"): "self",
    ("predict", "engine"): "self",
    ("profile", "engine"): "self",
    ("build", "engine"): "self",
    ("bundle", "reference"): "engine",
    ("search best", "name"): "self",
    ("search best", "storage"): "self",
}
"""Options that another method, or another argument, stands for."""
UNUSED = {"data check": {"leaky"}, "search run": {"leaky"}}
"""Options that all commands with a recipe have, and that change nothing in these."""


def commands(group: click.Group, before: str = "") -> Iterator[tuple[str, click.Command]]:
    """Yield every command by its whole name."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from commands(command, f"{before}{name} ")
        else:
            yield f"{before}{name}", command


ALL = dict(commands(cli))


def counterpart(name: str) -> Any:
    """Return what stands for a command in Python; techniques are methods of a model."""
    technique = name.replace("-", "_")
    return getattr(MODEL, technique) if technique in TECHNIQUES else COUNTERPARTS[name]


@pytest.mark.parametrize("name", sorted(ALL))
def test_a_command_has_its_counterpart_with_every_option(name: str) -> None:
    method = counterpart(name)
    known = inspect.signature(method).parameters
    of_model = method.__qualname__.startswith("Model.")
    lacking = []
    for parameter in ALL[name].params:
        wanted = RENAMED.get(str(parameter.name), str(parameter.name))
        wanted = OTHERWISE.get((name, str(parameter.name)), wanted)
        wanted = OTHERWISE.get((name, wanted), wanted)
        if parameter.name in COMMON | UNUSED.get(name, set()):
            continue
        if wanted in known or (of_model and wanted == "model"):
            continue
        key = wanted.rpartition("_")[2]  # train.epochs is the option train_epochs
        if key in known or (of_model and wanted == "set" and "keys" in known):
            continue
        lacking.append(parameter.name)
    assert not lacking, f"{method.__qualname__} lacks {lacking}"


def test_nothing_stands_for_a_command_that_is_gone() -> None:
    assert set(COUNTERPARTS) <= set(ALL)


def test_public_names_have_examples_or_texts() -> None:
    """Whatever the package exports says what it is."""
    for name in lesiontk.__all__:
        if name != "__version__":
            assert inspect.getdoc(getattr(lesiontk, name)), name
    for kind in (WORKSPACE, MODEL, ENGINE):
        for name, member in vars(kind).items():
            if not name.startswith("_"):
                assert inspect.getdoc(member), f"{kind.__name__}.{name}"


def test_every_public_name_is_typed() -> None:
    for kind in (WORKSPACE, MODEL, ENGINE):
        for name, member in inspect.getmembers(kind, inspect.isfunction):
            if not name.startswith("_"):
                assert member.__annotations__.get("return"), f"{kind.__name__}.{name}"
