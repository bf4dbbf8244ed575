"""Whether the files of a bundle are those that were written."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

COPY = "A bundle with changed files does not run: copy it again"


class DamagedBundleError(Exception):
    """Files of the bundle are missing, changed or not listed."""

    exit_code = 2


@dataclass(frozen=True)
class FileCheck:
    """Every listed file with its SHA-256, and the faults that were found.

    `sums_sha256` is the hash of ``SHA256SUMS``: it identifies the whole bundle.
    """

    listed: Mapping[str, str]
    damaged: tuple[str, ...]
    sums_sha256: str

    @property
    def as_expected(self) -> bool:
        """Whether no fault was found."""
        return not self.damaged

    def require(self, names: Iterable[str]) -> None:
        """Raise `DamagedBundleError` unless all files are intact and `names` are among them."""
        damaged = list(self.damaged)
        if not damaged:
            missing = (name for name in names if name not in self.listed)
            damaged = [f"{name} is not listed in SHA256SUMS" for name in missing]
        if damaged:
            more = f" and {len(damaged) - 3} more" if len(damaged) > 3 else ""
            raise DamagedBundleError(f"{'; '.join(damaged[:3])}{more}. {COPY}")


def check_files(folder: Path, listed: Mapping[str, str]) -> FileCheck:
    """Return the files that differ from `listed`, or are used but not listed.

    Images and other files in the folder are not checked; code and bundle.json must be listed.
    """
    used = {"bundle.json", *(path.relative_to(folder).as_posix() for path in list_code(folder))}
    damaged = [name + " is not listed in SHA256SUMS" for name in sorted(used - set(listed))]
    for name, digest in listed.items():
        path = folder / name
        if not path.is_file():
            damaged.append(name + " is missing")
        elif hash_file(path) != digest:
            damaged.append(name + " was changed")
    return FileCheck(listed, tuple(damaged), hash_file(folder / "SHA256SUMS"))


def list_code(folder: Path) -> list[Path]:
    """Return every file that Python could import from the folder."""
    return [*folder.glob("*.py"), *folder.glob("enhance/*.py")]


def hash_file(path: Path) -> str:
    """Return a file's SHA-256."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        for part in iter(lambda: stream.read(1 << 20), b""):
            digest.update(part)
    return digest.hexdigest()
