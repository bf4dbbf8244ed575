"""Progress reporting of long tasks; the command line renders it, other callers may ignore it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

Advance = Callable[..., None]
"""``advance(steps, note="")`` reports completed units of work, with an optional note."""


class Progress(Protocol):
    """Opens one bar per task."""

    def task(self, description: str, total: int | None) -> AbstractContextManager[Advance]:
        """Return a context manager whose value is called as the task advances."""
        ...


class NoProgress:
    """The silent default."""

    @contextmanager
    def task(self, description: str, total: int | None) -> Iterator[Advance]:
        """Yield a function that does nothing."""
        yield lambda steps, note="": None
