"""The recipe of a call: a packaged name, a file or a record, with the call's overrides."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lesiontk.recipe import Recipe, override_recipe, read_recipe

Settings = Mapping[str, Any] | Iterable[str] | None
"""Overrides of keys: ``{"train.epochs": 3}``, ``{"train": {"epochs": 3}}`` or
``["train.epochs=3"]``."""


def choose_recipe(
    recipe: str | Path | Recipe,
    *,
    data: Path | None = None,
    weights: str | None = None,
    accept_near_duplicates: bool = False,
    leaky: bool = False,
    overrides: Iterable[str] = (),
) -> Recipe:
    """Return the recipe with the arguments applied; `overrides` have precedence.

    `data` is the folder of the images and their table; a synthetic source is replaced. File paths
    become absolute, because later calls may run in another folder.
    """
    named = recipe if isinstance(recipe, Recipe) else read_recipe(str(recipe))
    changes = []
    if data is not None:
        changes.append(f"data.path={json.dumps(str(data.resolve()))}")
        if named.data.source == "synthetic":
            changes.append("data.source=auto")
    if weights is not None:
        changes.append(f"model.weights={json.dumps(weights)}")
    if accept_near_duplicates:
        changes.append("data.split.near_duplicates=accept")
    if leaky:
        changes += ["data.split.leaky=true", 'convert=["keras:float32"]']
    chosen = override_recipe(named, [*changes, *overrides])
    files = {
        "data.task": chosen.data.task,
        "model.weights": chosen.model.weights,
        "calibration.list": chosen.calibration.list,
    }
    steps = [
        {entry.technique: {key: locate_file(value) for key, value in entry.options.items()}}
        for entry in chosen.compress
    ]
    located = [f"{key}={json.dumps(locate_file(value))}" for key, value in files.items() if value]
    return override_recipe(chosen, [*located, f"compress={json.dumps(steps)}"])


def list_overrides(settings: Settings) -> tuple[str, ...]:
    """Return ``section.key=value`` of settings such as ``{"train.epochs": 3}``.

    ``{"train": {"epochs": 3}}`` is equivalent: other keys keep their values. Texts
    ``section.key=value`` are returned as they are.
    """
    if not isinstance(settings, Mapping):
        return tuple(settings or ())
    found: list[str] = []
    for key, value in settings.items():
        if isinstance(value, Mapping) and value:
            found += list_overrides({f"{key}.{name}": inner for name, inner in value.items()})
        else:
            found.append(f"{key}={json.dumps(value, default=str)}")
    return tuple(found)


def with_gates(settings: Settings, gates: Sequence[str]) -> tuple[str, ...]:
    """Return the overrides of settings, and of gates that replace the recipe's."""
    overrides = list_overrides(settings)
    return (*overrides, f"gate={json.dumps(list(gates))}") if gates else overrides


def with_folds(settings: Settings, folds: int | None) -> tuple[str, ...]:
    """Return the overrides of settings, and of the number of folds if given."""
    overrides = list_overrides(settings)
    return overrides if folds is None else (f"data.split.folds={folds}", *overrides)


def locate_file(value: Any) -> Any:
    """Return the absolute path, as text, of an existing file, also in a tuple; or the value."""
    if isinstance(value, tuple):
        return [locate_file(entry) for entry in value]
    value = str(value) if isinstance(value, Path) else value
    return str(Path(value).resolve()) if isinstance(value, str) and Path(value).is_file() else value
