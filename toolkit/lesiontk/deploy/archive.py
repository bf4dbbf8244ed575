"""A bundle as one file, with the same bytes whenever it is made of the same files."""

from __future__ import annotations

import gzip
import io
import tarfile
from pathlib import Path
from typing import Final

from lesiontk.errors import UsageError
from lesiontk.files.whole_files import write_whole

SUFFIX: Final = ".tar.gz"
MODE, PROGRAM_MODE = 0o644, 0o755


def check_archive(out: Path) -> None:
    """Raise `UsageError` unless `out` is a new file that ends in ``.tar.gz``."""
    if not out.name.endswith(SUFFIX) or out.name == SUFFIX:
        raise UsageError(f"the archive is {out.name!r}; expected a name that ends in {SUFFIX}.")
    if out.exists():
        raise UsageError(f"{out} exists; expected a new file.")


def write_archive(folder: Path, out: Path) -> None:
    """Write the files of a folder as ``.tar.gz``, below the archive's own name.

    Order, times, owners and modes do not depend on the machine. Raises as `check_archive`.
    """
    check_archive(out)
    root = out.name[: -len(SUFFIX)]
    packed = io.BytesIO()
    # No name and no time in gzip's header.
    with (
        gzip.GzipFile(filename="", mode="wb", fileobj=packed, mtime=0) as compressed,
        tarfile.open(fileobj=compressed, mode="w", format=tarfile.USTAR_FORMAT) as archive,
    ):
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            content = path.read_bytes()
            entry = tarfile.TarInfo(f"{root}/{path.relative_to(folder).as_posix()}")
            entry.size = len(content)
            entry.mode = PROGRAM_MODE if path.name == "run.py" else MODE
            archive.addfile(entry, io.BytesIO(content))
    write_whole({out: packed.getvalue()})
