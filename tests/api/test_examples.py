"""The examples in the docstrings of the interface run, and give what they show."""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path
from typing import Any

import pytest

import lesiontk

MODULES = sorted(
    f"lesiontk.api.{path.stem}"
    for path in (Path(lesiontk.__file__).parent / "api").glob("*.py")
    if path.stem != "__init__"
)
SHOWN = [
    (example.name, example)
    for module in MODULES
    for example in doctest.DocTestFinder(exclude_empty=True).find(importlib.import_module(module))
    if example.examples
]


def test_there_are_examples() -> None:
    classes = {name.split(".")[3] for name, _ in SHOWN}
    assert {"Workspace", "Model", "Engine", "Benchmark"} <= classes


@pytest.mark.parametrize(("name", "example"), SHOWN, ids=[name for name, _ in SHOWN])
def test_an_example_gives_what_it_shows(
    name: str,
    example: doctest.DocTest,
    ws: Any,
    recipe: Any,
    model: Any,
    engine: Any,
    picture: Any,
) -> None:
    example.globs = {
        "lesiontk": lesiontk,
        "ws": ws,
        "recipe": recipe,
        "model": model,
        "engine": engine,
        "picture": picture,
    }
    told: list[str] = []
    doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(example, out=told.append)
    assert not told, "".join(told)
