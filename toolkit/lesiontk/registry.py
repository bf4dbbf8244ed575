"""A registry of named, interchangeable objects, and the plugins that add to it.

A plugin is an entry point of the group ``lesiontk.plugins``: a function without arguments that
calls `Registry.register` for the entries of its distribution.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from importlib.metadata import EntryPoint, entry_points
from threading import RLock
from typing import Any, Generic, TypeVar, cast

from lesiontk.errors import LesionTKError, MissingRequirementError, UsageError, suggest

T = TypeVar("T")
PLUGINS = "lesiontk.plugins"


class _PluginLoader:
    """Loads every plugin once per process, at the first look-up in a registry.

    `distribution` is the one whose plugin is being registered, with its version.
    """

    def __init__(self) -> None:
        self.distribution = ""
        self._lock = RLock()
        self._started = False
        self._failure: LesionTKError | None = None

    def load(self) -> None:
        """Register the plugins. Raises `MissingRequirementError` if one fails."""
        with self._lock:
            if not self._started:  # a look-up by a plugin finds the entries so far
                self._started = True
                for plugin in entry_points(group=PLUGINS):
                    self._load(plugin)
            if self._failure is not None:
                raise self._failure

    def _load(self, plugin: EntryPoint) -> None:
        dist = plugin.dist
        self.distribution = (
            "an unknown distribution" if dist is None else f"{dist.name} {dist.version}"
        )
        try:
            plugin.load()()
        except Exception as error:  # noqa: BLE001 - any error is that of the plugin
            self._failure = self._failure or MissingRequirementError(
                f"the plugin {plugin.name} of {self.distribution} cannot be loaded: "
                f"{type(error).__name__}: {error}; expected a function that registers its entries. "
                "Fix, update or uninstall that distribution."
            )
        finally:
            self.distribution = ""


_LOADER = _PluginLoader()


class Registry(Generic[T]):
    """A mapping from names to objects that are imported on first use.

    An entry is ``"package.module:attribute"``: listing names and summaries imports nothing, so a
    command's choices are listed without loading a framework. Entries of the registries `includes`
    are found, too.
    """

    def __init__(self, family: str, includes: tuple[Registry[Any], ...] = ()) -> None:
        self.family = family
        self._includes = includes
        self._targets: dict[str, str] = {}
        self._summaries: dict[str, str] = {}
        self._renamed: dict[str, str] = {}
        self._distributions: dict[str, str] = {}

    def register(self, name: str, target: str, summary: str = "", *, formerly: str = "") -> None:
        """Add `name`. A duplicate name is an error, because a silent replacement hides a bug.

        `summary` is a line for listings, `formerly` the name in the last release.
        """
        if name in self._targets:
            raise ValueError(f"{self.family} {name!r} is already registered")
        if target.count(":") != 1:
            raise ValueError(
                f"target {target!r} of {self.family} {name!r} is not 'module:attribute'"
            )
        self._targets[name], self._summaries[name] = target, summary
        if formerly:
            self._renamed[formerly] = name
        if _LOADER.distribution:
            self._distributions[name] = _LOADER.distribution

    @property
    def renamed(self) -> Mapping[str, str]:
        """Former name -> current name."""
        _LOADER.load()
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
        try:
            return cast(T, getattr(importlib.import_module(module), attribute))
        except (ImportError, AttributeError) as error:
            if name not in self._distributions:
                raise
            raise MissingRequirementError(
                f"{self.family} {name!r} of the plugin {self._distributions[name]} cannot be "
                f"imported from {targets[name]}: {error}. Fix, update or uninstall it."
            ) from error

    def summarize(self) -> dict[str, str]:
        """Return name -> its summary, without the entries of other registries."""
        _LOADER.load()
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
        _LOADER.load()
        targets = dict(self._targets)
        for registry in self._includes:
            included = registry._all_targets()
            if taken := targets.keys() & included.keys():
                raise ValueError(
                    f"{registry.family} {min(taken)!r} has the name of another {self.family}"
                )
            targets |= included
        return targets
