"""Progress bars on a terminal or in a notebook."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from html import escape
from typing import Any

from lesiontk.progress import Advance, NoProgress, Progress

REFRESH = 0.2
"""Seconds between two updates of a notebook's bar."""


def make_progress() -> Progress:
    """Return bars in a notebook or on a terminal, otherwise no output."""
    if in_notebook():
        return NotebookProgress()
    return RichProgress() if sys.stderr.isatty() else NoProgress()


def in_notebook() -> bool:
    """Whether this code runs in the kernel of a notebook."""
    if "IPython" not in sys.modules:
        return False
    from IPython import get_ipython

    return getattr(get_ipython(), "kernel", None) is not None


class RichProgress:
    """One bar per task, on standard error; several threads may have tasks at once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._bars: Any = None

    @contextmanager
    def task(self, description: str, total: int | None) -> Iterator[Advance]:
        """Yield the function that advances the bar; a note is shown behind it."""
        with self._lock:  # two displays would write over each other
            bars = self._bars = self._bars or _start_bars()
            handle = bars.add_task(description, total=total, note="")

        def advance(steps: int, note: str = "") -> None:
            if note:
                bars.update(handle, advance=steps, note=note)
            else:
                bars.advance(handle, steps)

        try:
            yield advance
        finally:
            with self._lock:
                bars.remove_task(handle)
                if not bars.tasks:
                    bars.stop()
                    self._bars = None


def _start_bars() -> Any:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        SpinnerColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    bars = Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
        console=Console(stderr=True),
        transient=True,
    )
    bars.start()
    return bars


class NotebookProgress:
    """One HTML bar per task, removed when the task ends; unlike rich's bars it needs no widgets."""

    @contextmanager
    def task(self, description: str, total: int | None) -> Iterator[Advance]:
        """Yield the function that advances the bar; a note is shown behind it."""
        from IPython.display import HTML, display

        done, shown, last_note = 0, time.monotonic(), ""
        handle: Any = display(HTML(draw_bar(description, 0, total)), display_id=True)

        def advance(steps: int, note: str = "") -> None:
            nonlocal done, shown, last_note
            done, last_note = done + steps, note or last_note
            if time.monotonic() - shown >= REFRESH:
                shown = time.monotonic()
                handle.update(HTML(draw_bar(description, done, total, last_note)))

        try:
            yield advance
        finally:
            handle.update(HTML(""))


def draw_bar(description: str, done: int, total: int | None, note: str = "") -> str:
    """Return a bar as HTML, indeterminate without a `total`."""
    share = f' value="{done}" max="{total}"' if total else ""
    count = f"{done}/{total}" if total else str(done or "")
    return f"{escape(description)} <progress{share}></progress> {count} {escape(note)}"
