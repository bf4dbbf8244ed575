"""Atomic writing of one or several files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path


def write_whole(contents: Mapping[Path, bytes]) -> None:
    """Write each file to a temporary name, then rename all; a failure leaves none behind."""
    ready: dict[Path, Path] = {}
    try:
        for path, content in contents.items():
            ready[path] = path.with_name(f".{path.name}.tmp")
            ready[path].write_bytes(content)
        for path, temporary in ready.items():
            temporary.replace(path)
    finally:
        for temporary in ready.values():
            temporary.unlink(missing_ok=True)
