"""Official data sets, downloaded with a progress bar."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lesiontk.api.progress import make_progress
from lesiontk.progress import Advance


def fetch_data(source: str, folder: str | Path, *, unpack: bool = True) -> dict[str, Any]:
    """Download an official source such as ``ham10000`` into a folder; return its notice and files.

    Resumes an interrupted download and verifies checksums. Raises `UsageError` for an unknown
    source, `DataError` for a download that does not match its published checksum.
    """
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

        result = fetch_source(official, Path(folder), unpack=unpack, progress=report)
    files = [{k: str(v) for k, v in asdict(file).items()} for file in result.files]
    return {"source": source, "notice": official.notice, "files": files}
