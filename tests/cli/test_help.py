"""Help answers at once: no framework is loaded, whatever command is asked."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from lesiontk.cli.main import COMMANDS, list_summaries

HEAVY = {
    "cv2",
    "matplotlib",
    "mlflow",
    "onnx",
    "onnxruntime",
    "optuna",
    "pandas",
    "scipy",
    "sklearn",
    "tensorflow",
    "tensorrt",
    "tf_keras",
}
SUBCOMMANDS = [
    "data fetch",
    "data check",
    "data split",
    "calibration draw",
    "calibration stability",
    "calibration show",
    "calibration check",
    "gate power",
    "recipe list",
    "recipe show",
    "recipe new",
    "search best",
    "search init",
    "search run",
    "search show",
    "search status",
    "task list",
    "task new",
]

ALL_HELPS = """
import contextlib, io, json, sys
import click
from lesiontk.cli.main import cli

helps = {}

def visit(command, path):
    text = io.StringIO()
    with contextlib.redirect_stdout(text):
        code = cli.main([*path, "--help"], prog_name="lesiontk", standalone_mode=False)
    helps[" ".join(path)] = {"code": code, "text": text.getvalue()}
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            visit(command.get_command(context, name), [*path, name])

visit(cli, [])
print(json.dumps({"helps": helps, "modules": sorted(sys.modules)}))
"""
REGISTRIES = """
import sys
from lesiontk.backends import BACKENDS
from lesiontk.data.sources import SOURCES
from lesiontk.models import ARCHITECTURES
from lesiontk.recipe import list_recipes
from lesiontk.stages import STAGES
assert all(len(list(r)) > 1 for r in (BACKENDS, SOURCES, ARCHITECTURES, STAGES))
assert list_recipes()
print(*sys.modules)
"""


def run_python(code: str) -> str:
    """Run code in a fresh process; return what it printed."""
    command = [sys.executable, "-c", code]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@pytest.fixture(scope="module")
def asked() -> dict[str, Any]:
    """Every help there is, asked in one process: what one of them loads stays loaded."""
    document: dict[str, Any] = json.loads(run_python(ALL_HELPS))
    return document


def test_no_help_loads_a_framework(asked: dict[str, Any]) -> None:
    modules = set(asked["modules"])
    assert {f"lesiontk.cli.{target.split(':')[0]}" for target, _ in COMMANDS.values()} <= modules
    assert not HEAVY & modules


def test_importing_the_package_loads_no_framework() -> None:
    modules = set(run_python("import sys, lesiontk; print(*sys.modules)").split())
    assert "lesiontk" in modules
    assert not (HEAVY | {"numpy", "pydantic"}) & modules


def test_listing_names_loads_no_framework() -> None:
    modules = set(run_python(REGISTRIES).split())
    assert "lesiontk.stage" in modules
    assert not HEAVY & modules


def test_a_framework_that_is_loaded_is_noticed() -> None:
    """The twin of the tests above."""
    modules = set(run_python("import sys, matplotlib; print(*sys.modules)").split())
    assert HEAVY & modules == {"matplotlib"}


def test_every_command_and_subcommand_has_help(asked: dict[str, Any]) -> None:
    assert set(asked["helps"]) == {"", *list_summaries(), *SUBCOMMANDS}
    for name, help_ in asked["helps"].items():
        assert help_["code"] == 0
        assert help_["text"].startswith(f"Usage: lesiontk {name}".rstrip())
        assert "--help" in help_["text"]


def test_the_first_help_lists_every_command_with_what_it_does(asked: dict[str, Any]) -> None:
    lines = asked["helps"][""]["text"].splitlines()
    for name, summary in list_summaries().items():
        (line,) = (line for line in lines if line.startswith(f"  {name} "))
        assert line.split(maxsplit=1)[1] == summary


def test_every_command_takes_the_common_options(asked: dict[str, Any]) -> None:
    groups = {"", "calibration", "data", "gate", "recipe", "search", "task"}
    for name, help_ in asked["helps"].items():
        for option in ("--workspace", "--shared", "--track", "--json", "--quiet", "--debug"):
            assert (option in help_["text"]) == (name not in groups), f"{name} {option}"
