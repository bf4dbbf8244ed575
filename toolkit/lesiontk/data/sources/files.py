"""Listing of all files of a data folder, including linked folders."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path


def list_files(root: Path) -> Iterator[Path]:
    """Yield the regular files of `list_entries`: no pipes, sockets, devices or broken links."""
    return (path for path in list_entries(root) if path.is_file())


def list_entries(root: Path) -> Iterator[Path]:
    """Yield all entries below `root` but folders and hidden ones, in no particular order.

    Links to folders outside are followed once each, so that a loop ends; links to folders below
    `root` are not followed.
    """
    known = {root.resolve()}
    for folder, below, files in os.walk(root, followlinks=True):
        below[:] = [name for name in sorted(below) if _is_new(Path(folder, name), root, known)]
        yield from (Path(folder, name) for name in files if not name.startswith("."))


def _is_new(folder: Path, root: Path, known: set[Path]) -> bool:
    if folder.name.startswith("."):
        return False
    if not folder.is_symlink():
        return True
    target = folder.resolve()
    inside = target.is_relative_to(root.resolve()) or root.resolve().is_relative_to(target)
    if inside or any(target.is_relative_to(other) for other in known if other != root.resolve()):
        return False
    known.add(target)
    return True
