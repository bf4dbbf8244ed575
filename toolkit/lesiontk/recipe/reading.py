"""Reading recipes from names, files and ``section.key=value``, and writing them as YAML."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from importlib import resources
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError

from lesiontk.errors import UsageError, shorten, show_value, suggest
from lesiontk.files.regular_file import read_regular_text
from lesiontk.files.strict_yaml import BYTES, load_yaml
from lesiontk.recipe.recipe import Recipe

SHOWN = 5
"""Faults of a document that one error lists; it counts the others."""


def list_recipes() -> tuple[str, ...]:
    """Return the names of the packaged recipes."""
    folder = resources.files("lesiontk.recipes")
    return tuple(
        sorted(e.name.removesuffix(".yaml") for e in folder.iterdir() if e.name.endswith(".yaml"))
    )


def read_recipe(name_or_path: str, overrides: Iterable[str] = ()) -> Recipe:
    """Return the recipe of a name or YAML file, with ``section.key=value`` overrides applied.

    A recipe without a name is named after its file. Raises `UsageError` for an unknown name,
    invalid YAML, an unknown key or a value out of range.
    """
    path = Path(name_or_path)
    if path.suffix in (".yaml", ".yml"):
        text = read_regular_text(path, "recipe file", limit=BYTES)
        named = {"name": name_from_path(path)}
    else:
        known = list_recipes()
        if name_or_path not in known:
            raise UsageError(
                f"unknown recipe {name_or_path!r}; known are {', '.join(known)}, or specify the "
                "path "
                f"of a .yaml file.{suggest(name_or_path, known)}"
            )
        text = resources.files("lesiontk.recipes").joinpath(f"{name_or_path}.yaml").read_text()
        named = {}
    try:
        document = load_yaml(text)
    except yaml.YAMLError as error:
        raise UsageError(f"recipe {name_or_path} is not valid YAML: {error}") from error
    if not isinstance(document, dict):
        raise UsageError(f"recipe {name_or_path} is {type(document).__name__}; expected keys.")
    document = {**named, **document}
    for override in overrides:
        _override(document, override)
    return parse_recipe(document)


def name_from_path(path: Path) -> str:
    """Return the name of a recipe whose file does not contain one."""
    return re.sub(r"[^a-z0-9]+", "_", path.stem.lower()).strip("_") or "recipe"


def parse_recipe(document: Mapping[str, Any]) -> Recipe:
    """Return the validated recipe of a document; errors name the key and the nearest known one."""
    try:
        return Recipe.model_validate(document)
    except ValidationError as error:
        raise UsageError(f"the recipe is not valid: {explain_invalid(error, Recipe)}") from error


def override_recipe(recipe: Recipe, overrides: Iterable[str]) -> Recipe:
    """Return the recipe with ``section.key=value`` overrides."""
    document = recipe.model_dump(mode="json")
    for override in overrides:
        _override(document, override)
    return parse_recipe(document)


def override_document(document: Mapping[str, Any], overrides: Iterable[str]) -> dict[str, Any]:
    """Return a plain document with ``key=value`` overrides."""
    changed = dict(document)
    for override in overrides:
        _override(changed, override)
    return changed


def dump_recipe(recipe: Recipe) -> str:
    """Return the recipe as YAML with every default visible."""
    return yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def dump_template(recipe: Recipe) -> str:
    """Return the recipe as YAML that another one can start from, its name in a comment."""
    document = recipe.model_dump(mode="json", exclude={"name", "description"})
    title = f"{recipe.name}: {recipe.description}" if recipe.description else recipe.name
    body = yaml.safe_dump(document, sort_keys=False, allow_unicode=True)
    return (
        f"# {' '.join(title.split())}\n# A file with these keys is a recipe named after the "
        f"file.\n{body}"
    )


def _override(document: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise UsageError(f"override {override!r} is not section.key=value, such as train.epochs=3.")
    *sections, last = key.split(".")
    node = document
    for section in sections:
        if node.get(section) is None:  # a section that is left out by default
            node[section] = {}
        node = node[section]
        if not isinstance(node, dict):
            raise UsageError(f"override {override!r}: {section!r} is a value; expected a section.")
    try:
        node[last] = load_yaml(text)
    except yaml.YAMLError as error:
        raise UsageError(f"override {override!r}: its value is not valid YAML: {error}") from error


def explain_invalid(error: ValidationError, model: type[BaseModel]) -> str:
    """Return the faults of a document of `model`: key, received value, nearest known key."""
    entries = error.errors(include_url=False)
    messages = []
    for entry in entries[:SHOWN]:
        where = shorten(".".join(str(part) for part in entry["loc"]))
        if entry["type"] == "extra_forbidden":
            known = _keys_at(model, entry["loc"][:-1])
            messages.append(f"unknown key {where!r}.{suggest(str(entry['loc'][-1]), known)}")
        else:
            received = show_value(entry["input"])
            messages.append(f"{where or 'recipe'}: {entry['msg']} (received {received})")
    if len(entries) > SHOWN:
        messages.append(f"and {len(entries) - SHOWN} more")
    return "; ".join(messages)


def _keys_at(model: type[BaseModel], location: tuple[int | str, ...]) -> list[str]:
    """Return the keys known at a location, through sections and through maps of sections."""
    inner: Any = model
    for part in location:
        if _is_section(inner):
            known = inner.model_fields.get(str(part))
            inner = known.annotation if known else None
        else:  # dict[str, Section]: any name leads to a section
            inner = next((a for a in get_args(inner) if _is_section(a)), None)
    return list(inner.model_fields) if _is_section(inner) else []


def _is_section(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)
