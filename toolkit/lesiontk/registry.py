"""A registry of named, interchangeable objects."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from typing import Any, Generic, TypeVar, cast

from lesiontk.errors import UsageError, suggest

T = TypeVar("T")


class Registry(Generic[T]):
    """A mapping from names to objects that are imported on first use.

    An entry is ``"package.module:attribute"``: listing names and summaries imports nothing, so a
    command's choices are known without loading a framework. What is in one of the registries
    `includes` is found here, too.
    """

    def __init__(self, family: str, includes: tuple[Registry[Any], ...] = ()) -> None:
        self.family = family
        self._includes = includes
        self._targets: dict[str, str] = {}
        self._summaries: dict[str, str] = {}
        self._renamed: dict[str, str] = {}

    def register(self, name: str, target: str, summary: str = "", *, formerly: str = "") -> None:
        """Add `name`; a name taken already is an error, because a silent replacement hides a bug.

        `summary` is a line for listings, `formerly` the name in the last release.
        """
        if name in self._targets:
            raise ValueError(f"{self.family} {name!r} is registered already")
        if target.count(":") != 1:
            raise ValueError(
                f"target {target!r} of {self.family} {name!r} is not 'module:attribute'"
            )
        self._targets[name], self._summaries[name] = target, summary
        if formerly:
            self._renamed[formerly] = name

    @property
    def renamed(self) -> Mapping[str, str]:
        """Former name -> name of today."""
        return dict(self._renamed)

    def get(self, name: str) -> T:
        """Return the object called `name`, or raise `UsageError` with the nearest known name."""
        targets = self._all_targets()
        if name not in targets:
            raise UsageError(
                f"unknown {self.family} {name!r}; known are {', '.join(targets)}."
                + suggest(name, targets)
            )
        module, attribute = targets[name].split(":")
        return cast(T, getattr(importlib.import_module(module), attribute))

    def summarize(self) -> dict[str, str]:
        """Return name -> the line about it, of what is registered here."""
        return {name: self._summaries.get(name, "") for name in self._targets}

    def items(self) -> Iterator[tuple[str, T]]:
        """Yield every name with its object, in order of registration."""
        for name in self:
            yield name, self.get(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._all_targets())

    def __contains__(self, name: object) -> bool:
        return name in self._all_targets()

    def __len__(self) -> int:
        return len(self._all_targets())

    def _all_targets(self) -> dict[str, str]:
        targets = dict(self._targets)
        for registry in self._includes:
            theirs = registry._all_targets()
            if taken := targets.keys() & theirs.keys():
                raise ValueError(
                    f"{registry.family} {min(taken)!r} has the name of another {self.family}"
                )
            targets |= theirs
        return targets
