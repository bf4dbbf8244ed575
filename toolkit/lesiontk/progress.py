"""How long work reports that it moves on; the command line shows it, others may ignore it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

Advance = Callable[..., None]
"""``advance(steps, note="")``: so many units of work are done; the note says how it goes."""


class Progress(Protocol):
    """Opens one bar per task."""

    def task(self, description: str, total: int | None) -> AbstractContextManager[Advance]:
        """Return a context whose value is called as the task moves on."""
        ...


class NoProgress:
    """The silent default."""

    @contextmanager
    def task(self, description: str, total: int | None) -> Iterator[Advance]:
        """Yield a function that does nothing."""
        yield lambda steps, note="": None
