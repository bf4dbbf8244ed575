"""Data sources: one file each, registered here."""

from __future__ import annotations

from pathlib import Path

from lesiontk.data.sources.source import Source
from lesiontk.errors import DataError
from lesiontk.registry import Registry

SOURCES: Registry[type[Source]] = Registry("data source")
SOURCES.register("ham10000", "lesiontk.data.sources.ham10000:Ham10000Source")
SOURCES.register("isic", "lesiontk.data.sources.isic:IsicSource")
SOURCES.register("folder", "lesiontk.data.sources.folder:FolderSource")
SOURCES.register("csv", "lesiontk.data.sources.csv_table:CsvSource")
SOURCES.register("synthetic", "lesiontk.data.sources.synthetic:SyntheticSource")

_SHOWN_ENTRIES = 8


def detect_source(path: Path) -> str:
    """Return the name of the one source whose layout the folder `path` has.

    Raises `DataError` if there is no such folder, or if none or several layouts match.
    """
    if not path.is_dir():
        what = "is a file" if path.is_file() else "does not exist"
        raise DataError(f"{path} {what}; expected the folder of a data set. Give that folder.")
    try:
        names = [name for name, source in SOURCES.items() if source().detect(path)]
        seen = sorted(entry.name for entry in path.iterdir() if not entry.name.startswith("."))
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error}. Check its permissions.") from error
    if len(names) == 1:
        return names[0]
    from lesiontk.data.sources.unknown_layout import explain_unknown  # it opens archives

    if names:
        raise DataError(
            f"{path} matches the layouts {', '.join(names)}; expected one. Specify it with "
            f"--source {names[0]}."
        )
    entries = ", ".join(seen[:_SHOWN_ENTRIES]) or "nothing"
    more = f" and {len(seen) - _SHOWN_ENTRIES} more" if len(seen) > _SHOWN_ENTRIES else ""
    layouts = "".join(f"\n  {name}: {source.info.layout}" for name, source in SOURCES.items())
    raise DataError(
        f"{path} contains {entries}{more}, which is not a known data set; expected one of these "
        f"layouts:{layouts}\n{' '.join(explain_unknown(path))}".rstrip()
    )
