"""Every file of a data folder, with the folders that are linked into it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path


def list_files(root: Path) -> Iterator[Path]:
    """Yield the regular files of `list_entries`: no pipes, sockets, devices, links to nowhere."""
    return (path for path in list_entries(root) if path.is_file())


def list_entries(root: Path) -> Iterator[Path]:
    """Yield all below `root` that is no folder, in no order; what is hidden is left out.

    Links to folders outside are followed, each once, so that a loop ends; a link to a folder below
    `root` leads to nothing new.
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
