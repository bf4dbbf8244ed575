"""Every file of a data folder, with the folders that are linked into it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path


def list_files(root: Path) -> Iterator[Path]:
    """Yield the regular files below `root`, in no order; what is hidden is left out.

    Links to folders outside are followed, each once, so that a loop ends; a link to a folder below
    `root` leads to nothing new. Pipes, sockets, devices and links that lead nowhere are left out.
    """
    known = {root.resolve()}
    for folder, below, files in os.walk(root, followlinks=True):
        below[:] = [name for name in sorted(below) if _is_new(Path(folder, name), root, known)]
        for name in files:
            path = Path(folder, name)
            if not name.startswith(".") and path.is_file():
                yield path


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
