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
    from lesiontk.data.fetch import fetch_source, find_official_source

    official = find_official_source(source)
    progress = make_progress()
    bars: dict[str, tuple[Advance, int]] = {}
    with ExitStack() as stack:

        def report(description: str, done: int, total: int | None) -> None:
            if description not in bars:
                bars[description] = (stack.enter_context(progress.task(description, total)), 0)
            advance, before = bars[description]
            advance(done - before)
            bars[description] = (advance, done)

        result = fetch_source(official, folder, unpack=unpack, progress=report)
    files = [{k: str(v) for k, v in asdict(file).items()} for file in result.files]
    return {"source": source, "notice": official.notice, "files": files}
