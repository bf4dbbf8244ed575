"""Atomic writing of one or several files. Bundles contain this file, on Python 3.8 or later."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path


def write_whole(contents: Mapping[Path, bytes]) -> None:
    """Write each file to a temporary name, then rename all in order; a failure leaves none behind.

    After a power failure a file has all of its new content or all of the old.
    """
    ready: dict[Path, Path] = {}
    try:
        for path, content in contents.items():
            ready[path] = path.with_name(f".{path.name}.tmp")
            with ready[path].open("wb") as stream:
                stream.write(content)
                stream.flush()
                os.fsync(stream.fileno())
        for path, temporary in ready.items():
            temporary.replace(path)
    finally:
        for temporary in ready.values():
            temporary.unlink(missing_ok=True)
