"""Downloads with a progress bar."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lesiontk.cli.progress import make_progress
from lesiontk.progress import Advance


def fetch_with_progress(source: str, folder: Path, unpack: bool) -> dict[str, Any]:
    """Fetch an official source; returns its notice and files."""
    from lesiontk.data.fetch.fetch import fetch_source
    from lesiontk.data.fetch.sources import find_official_source

    official = find_official_source(source)
    progress = make_progress()
    shown: tuple[str, Advance, int] | None = None
    with ExitStack() as stack:

        def report(description: str, done: int, total: int | None) -> None:
            nonlocal shown
            if shown is None or shown[0] != description:
                stack.close()  # one bar at a time
                shown = (description, stack.enter_context(progress.task(description, total)), 0)
            _, advance, before = shown
            advance(done - before)
            shown = (description, advance, done)

        result = fetch_source(official, folder, unpack=unpack, progress=report)
    files = [{k: str(v) for k, v in asdict(file).items()} for file in result.files]
    return {"source": source, "notice": official.notice, "files": files}
