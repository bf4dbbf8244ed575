"""One class for every family of named, exchangeable things."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from typing import Generic, TypeVar, cast

from lesiontk.errors import UsageError, suggest

T = TypeVar("T")


class Registry(Generic[T]):
    """Names mapped to objects that are imported when first asked for.

    An entry is ``"package.module:attribute"``: listing names imports nothing, so a command's
    choices are known without loading a framework.
    """

    def __init__(self, family: str) -> None:
        self.family = family
        self._targets: dict[str, str] = {}

    def register(self, name: str, target: str) -> None:
        """Add `name`; a name taken already is an error, for a silent replacement hides a bug."""
        if name in self._targets:
            raise ValueError(f"{self.family} {name!r} is registered already")
        if target.count(":") != 1:
            raise ValueError(
                f"target {target!r} of {self.family} {name!r} is not 'module:attribute'"
            )
        self._targets[name] = target

    def get(self, name: str) -> T:
        """Return the object called `name`, or raise `UsageError` with the nearest known name."""
        if name not in self._targets:
            raise UsageError(
                f"unknown {self.family} {name!r}; known are {', '.join(self)}."
                + suggest(name, self._targets)
            )
        module, attribute = self._targets[name].split(":")
        return cast(T, getattr(importlib.import_module(module), attribute))

    def items(self) -> Iterator[tuple[str, T]]:
        """Yield every name with its object, in order of registration."""
        for name in self._targets:
            yield name, self.get(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._targets)

    def __contains__(self, name: object) -> bool:
        return name in self._targets

    def __len__(self) -> int:
        return len(self._targets)
