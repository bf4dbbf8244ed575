"""Progress bars, where standard error is a terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from lesiontk.progress import Advance, NoProgress, Progress


def make_progress() -> Progress:
    """Return progress bars on a terminal, nothing elsewhere (the log has the progress)."""
    return RichProgress() if sys.stderr.isatty() else NoProgress()


class RichProgress:
    """One bar per task, on standard error."""

    @contextmanager
    def task(self, description: str, total: int | None) -> Iterator[Advance]:
        """Yield the function that moves the bar; a note stands behind it."""
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

        columns = (
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=30),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
        )
        with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
            handle = bars.add_task(description, total=total, note="")

            def advance(steps: int, note: str = "") -> None:
                if note:
                    bars.update(handle, advance=steps, note=note)
                else:
                    bars.advance(handle, steps)

            yield advance
