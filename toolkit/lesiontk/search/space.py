"""A space of recipes: which keys vary, over which values, and what is sought."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import yaml
from pydantic import BaseModel, Field, ValidationError, field_validator

from lesiontk.backends import parse_target
from lesiontk.errors import UsageError, show_value, suggest
from lesiontk.files.regular_file import read_regular_text
from lesiontk.files.strict_yaml import BYTES, load_yaml
from lesiontk.recipe import Recipe, explain_invalid
from lesiontk.search.trial_record import Assignment
from lesiontk.stage import StageConfig
from lesiontk.technique import TECHNIQUES, find_technique

RECIPE, TARGET, COMPRESS = "recipe", "target", "compress"
"""Keys that vary before all others: the recipe, the engine ``BACKEND:PRECISION``, and the chain of
compression, which decides what other keys apply."""

SHARED = (
    "data.path", "data.source", "data.task", "data.split", "data.synthetic", "data.max_failures",
    "evaluate", "verify", "bench", "gate", "unresolved", "bundle", "explain", "stability",
    "robustness",
    "name", "description",
)  # fmt: skip
"""Keys that all candidates share: they are compared on the same images by the same rules."""

GRID_LIMIT = 100_000
"""Candidates of a grid, which is listed in the database."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """What an assignment stands for: a recipe, its `settings` by key, and the engine `target`."""

    recipe: str
    target: str
    settings: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Dimension:
    """The values of one key: `choices`, or the numbers from `low` to `high`, both included.

    With `log` numbers are drawn on a logarithmic scale; `step` is the distance of neighbours.
    """

    key: str
    choices: tuple[Any, ...] = ()
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    step: float | None = None
    integer: bool = False

    @property
    def count(self) -> int | None:
        """The number of values; None for a range of real numbers without a step."""
        if self.choices:
            return len(self.choices)
        if self.integer:
            return int(self.high - self.low) // int(self.step or 1) + 1
        return None if self.step is None else int((self.high - self.low) / self.step + 1e-9) + 1

    def list_values(self) -> Iterator[Any]:
        """Yield all values in order. Raises `UsageError` if they cannot be counted."""
        if self.count is None:
            raise UsageError(
                f"{self.key} has any number from {self.low:g} to {self.high:g}; expected a list or "
                "a step for the sampler grid, or another sampler."
            )
        step = self.step or 1
        yield from self.choices or (self.low + number * step for number in range(self.count))

    @property
    def ends(self) -> tuple[Any, ...]:
        """The values whose validity decides that of the others."""
        return self.choices or tuple(
            int(value) if self.integer else value for value in (self.low, self.high)
        )


class _Range(StageConfig):
    low: int | float
    high: int | float
    log: bool = False
    step: int | float | None = Field(None, gt=0)


class SearchSpace(StageConfig):
    """What a search varies and seeks, as in a YAML file.

    `vary` maps a recipe's key to a list of values, or to ``{low, high, log, step}``. The first
    objective decides where several engines would do.
    """

    recipe: str = Field("cnn_7class", description="the recipe that the candidates start from")
    target: str = Field("tflite:int8", description="the engine, as BACKEND:PRECISION")
    set: dict[str, Any] = Field({}, description="keys that all candidates share")
    vary: dict[str, Any] = Field(description="key: values, or {low, high, log, step}")
    objectives: tuple[str, ...] = Field(
        ("balanced_accuracy",), min_length=1, description="metrics or figures; several: Pareto"
    )
    constraints: tuple[str, ...] = Field(
        (), description="such as p90_ms <= 5 or recall[mel] >= parent - 0.03"
    )
    sampler: Literal["tpe", "nsga2", "random", "grid"] = Field("tpe", description="the sampler")
    pruner: Literal["none", "hyperband"] = Field(
        "none", description="hyperband: end trainings that fall behind, by epochs"
    )
    trials: int = Field(24, ge=1, le=100_000, description="candidates to try")
    seed: int = Field(0, ge=0, lt=2**32, description="seed of the sampler")

    @field_validator("objectives", "constraints", mode="before")
    @classmethod
    def _accept_one(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value

    @field_validator("vary")
    @classmethod
    def _check_values(cls, value: dict[str, Any]) -> dict[str, Any]:
        if not value:
            raise UsageError(
                "the space is empty: `vary` names no key. Expected a key with its values, such as "
                "calibration.observer: [min_max, percentile]."
            )
        for key, values in value.items():
            _read_dimension(key, values)
        return value

    @property
    def dimensions(self) -> tuple[Dimension, ...]:
        """The keys that vary; those that decide on others come first."""
        first = (RECIPE, TARGET, COMPRESS)
        keys = sorted(self.vary, key=lambda key: first.index(key) if key in first else len(first))
        return tuple(_read_dimension(key, self.vary[key]) for key in keys)

    def is_active(self, key: str, chosen: Assignment) -> bool:
        """Return whether a key applies: an option of a technique does where the chain has it."""
        technique = _technique_of(key)
        return technique is None or any(technique in entry for entry in self._chain(chosen))

    def _chain(self, chosen: Assignment) -> list[dict[str, Any]]:
        chain = chosen.get(COMPRESS, self.set.get(COMPRESS, []))
        return [dict(entry) for entry in chain]

    def candidate_of(self, chosen: Assignment) -> Candidate:
        """Return the candidate of an assignment, with the keys that all share."""
        settings = dict(self.set)
        chain = self._chain(chosen)
        for key, value in chosen.items():
            technique = _technique_of(key)
            if technique is not None:
                entry = next(entry for entry in chain if technique in entry)
                *sections, last = key.split(".")[2:]
                node = entry[technique] = dict(entry[technique] or {})
                for section in sections:
                    node[section] = dict(node.get(section) or {})
                    node = node[section]
                node[last] = value
            elif key not in (RECIPE, TARGET, COMPRESS):
                settings[key] = value
        if COMPRESS in chosen or COMPRESS in self.set:
            settings[COMPRESS] = [{name: o or {} for name, o in e.items()} for e in chain]
        recipe, target = chosen.get(RECIPE, self.recipe), chosen.get(TARGET, self.target)
        return Candidate(str(recipe), str(target), settings)

    def list_assignments(self) -> Iterator[Assignment]:
        """Yield every candidate. Raises `UsageError` for a range without a step."""

        def extend(chosen: Assignment, rest: Sequence[Dimension]) -> Iterator[Assignment]:
            if not rest:
                yield chosen
            elif not self.is_active(rest[0].key, chosen):
                yield from extend(chosen, rest[1:])
            else:
                for value in rest[0].list_values():
                    yield from extend({**chosen, rest[0].key: value}, rest[1:])

        return extend({}, self.dimensions)

    @property
    def size(self) -> int | None:
        """The number of candidates, counted without listing them; None if they are infinite."""
        chains = [{COMPRESS: chain} for chain in self.vary.get(COMPRESS, ())] or [{}]
        total = 0
        for chosen in chains:  # the chain alone decides which keys apply
            counts = [
                dimension.count
                for dimension in self.dimensions
                if dimension.key != COMPRESS and self.is_active(dimension.key, chosen)
            ]
            if None in counts:
                return None
            total += math.prod(count for count in counts if count is not None)
        return total

    @property
    def candidates(self) -> int:
        """The number of trials that are wanted, and possible."""
        size = self.size
        return self.trials if size is None else min(self.trials, size)


def read_space(path: Path) -> SearchSpace:
    """Return the space of a YAML file. Raises `UsageError` for unknown keys and bad values."""
    text = read_regular_text(path, "search space", limit=BYTES)
    try:
        document = load_yaml(text)
    except yaml.YAMLError as error:
        raise UsageError(f"the search space {path} is not valid YAML: {error}") from error
    if not isinstance(document, dict):
        raise UsageError(
            f"the search space {path} is {type(document).__name__}; expected keys. `lesiontk "
            "search init` writes an example."
        )
    return parse_space(document)


def parse_space(document: Mapping[str, Any]) -> SearchSpace:
    """Return the validated space of a document; errors name the key and the nearest known one."""
    try:
        space = SearchSpace.model_validate(document)
    except ValidationError as error:
        why = explain_invalid(error, SearchSpace)
        raise UsageError(f"the search space is not valid: {why}") from error
    for dimension in space.dimensions:
        _check_key(dimension.key, space)
    for key in space.set:
        _check_known(key)
    for target in (space.target, *space.vary.get(TARGET, ())):
        parse_target(target)
    if space.sampler == "grid":
        _check_grid(space)
    return space


def show_setting(value: Any) -> str:
    """Return a value as one readable line; a chain of compression as ``prune (keep_macs=0.5)``."""
    if isinstance(value, list):
        return " + ".join(map(show_setting, value)) or "none"
    if isinstance(value, Mapping):
        parts = []
        for name, options in value.items():
            inner = ", ".join(f"{k}={v}" for k, v in (options or {}).items())
            parts.append(f"{name} ({inner})" if inner else str(name))
        return ", ".join(parts)
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _read_dimension(key: str, values: Any) -> Dimension:
    if isinstance(values, list):
        if not values:
            raise UsageError(f"{key} has no values; expected at least one.")
        if len({json.dumps(value, sort_keys=True, default=str) for value in values}) < len(values):
            raise UsageError(f"{key} has a value twice in {show_value(values)}.")
        return Dimension(key, choices=tuple(values))
    if not isinstance(values, dict):
        raise UsageError(
            f"{key} is {show_value(values)}; expected a list of values, or {{low: …, high: …}}. A "
            "key with one value belongs to `set`."
        )
    try:
        found = _Range.model_validate(values)
    except ValidationError as error:
        raise UsageError(f"{key}: {explain_invalid(error, _Range)}") from error
    whole = all(isinstance(x, int) for x in (found.low, found.high, found.step or 1))
    if not found.low < found.high:
        raise UsageError(f"{key}: low {found.low:g}, high {found.high:g}; expected low < high.")
    if found.log and (found.low <= 0 or found.step is not None):
        raise UsageError(f"{key}: with log, expected low above 0 and no step.")
    return Dimension(
        key, low=found.low, high=found.high, log=found.log, step=found.step, integer=whole
    )


def _technique_of(key: str) -> str | None:
    """Return ``prune`` of ``compress.prune.keep_macs``; None for other keys."""
    section, _, rest = key.partition(".")
    return rest.partition(".")[0] if section == COMPRESS and rest else None


def _check_grid(space: SearchSpace) -> None:
    """Raise `UsageError` for a grid that is infinite, or too large to list."""
    for dimension in space.dimensions:
        next(dimension.list_values())
    size = space.size or 0
    if size > GRID_LIMIT:
        raise UsageError(
            f"the grid has {size:,} candidates; expected {GRID_LIMIT:,} at most. Use larger steps, "
            "or another sampler, which tries `trials` of them."
        )


def _check_key(key: str, space: SearchSpace) -> None:
    if key in (RECIPE, TARGET):
        return
    if key == "convert":
        raise UsageError("convert cannot vary, because a candidate is one engine; vary `target`.")
    for shared in SHARED:
        if key == shared or key.startswith(f"{shared}."):
            raise UsageError(
                f"{key} cannot vary, because all candidates are compared on the same images by the "
                "same rules; expected it in `set`."
            )
    _check_known(key)
    technique = _technique_of(key)
    if technique is not None and COMPRESS not in {*space.vary, *space.set}:
        raise UsageError(
            f"{key} is an option of a chain that is not given; expected `compress` in `vary` or "
            f"`set`, such as compress: [[{technique}: {{}}]]."
        )


def _check_known(key: str) -> None:
    """Raise `UsageError` with the nearest name for a key that no recipe has."""
    technique = _technique_of(key)
    if technique is not None:
        if technique not in TECHNIQUES:
            raise UsageError(
                f"unknown technique {technique!r} in {key}; known are {', '.join(TECHNIQUES)}."
                f"{suggest(technique, TECHNIQUES)}"
            )
        config = find_technique(technique).info.config
        option, known = key.split(".")[2:], [*_list_keys(config)]
        if ".".join(option) not in known:
            names = [f"compress.{technique}.{name}" for name in known]
            raise UsageError(f"unknown key {key!r}.{suggest(key, names)}")
        return
    known = [*_list_keys(Recipe)]
    if key not in known:
        near = suggest(key, [*known, RECIPE, TARGET])
        raise UsageError(
            f"unknown key {key!r} of a recipe.{near} `lesiontk recipe show` lists all."
        )


def _list_keys(model: type[BaseModel], before: str = "") -> Iterator[str]:
    """Yield every dotted key of a section, of inner sections too."""
    for name, field in model.model_fields.items():
        yield f"{before}{name}"
        for part in (field.annotation, *get_args(field.annotation)):
            if isinstance(part, type) and issubclass(part, BaseModel):
                yield from _list_keys(part, f"{before}{name}.")
