"""Explanations of why no source can read a folder, for the error message."""

from __future__ import annotations

from pathlib import Path

from lesiontk.data.sources import SOURCES
from lesiontk.data.sources.columns import choose_columns, is_ignored
from lesiontk.data.sources.image_index import index_images
from lesiontk.data.sources.table import list_tables, may_be_table, read_columns
from lesiontk.errors import DataError, shorten
from lesiontk.files.regular_file import check_regular

_SHOWN_TABLES, _SHOWN_COLUMNS, _SHOWN_FOLDERS, _MANY = 3, 10, 3, 200
_SPREADSHEETS = (".xlsx", ".xls", ".xlsm", ".ods", ".numbers")
_MAX_DEPTH = 3


def explain_unknown(path: Path) -> list[str]:
    """Return sentences on the tables and images of the folder `path`, if it has any."""
    reasons = []
    for entry in sorted(path.iterdir()):
        if may_be_table(entry.name) and not (entry.is_file() or entry.is_dir()):
            try:
                check_regular(entry, "table")
            except DataError as error:
                reasons.append(str(error))
    for file in list_tables(path, deep=True)[:_SHOWN_TABLES]:
        names = read_columns(file)
        columns = choose_columns(names)
        if not names:
            reasons.append(
                f"{file.name} is not a readable table (CSV as UTF-8 text): save it as 'CSV UTF-8'."
            )
        elif is_ignored(file.name) or len(names) > _MANY or names[0].startswith("pixel"):
            reasons.append(f"{file.name} lists no image files: lesiontk requires them.")
        elif len(names) == 1:
            reasons.append(
                f"{file.name} has one column, {shorten(names[0])!r}; expected several, separated "
                "by comma, tab, semicolon or bar."
            )
        elif not columns.describe_images:
            missing = "diagnosis" if columns.image or columns.file else "image"
            shown = ", ".join(map(shorten, names[:_SHOWN_COLUMNS]))
            shown += ", …" * (len(names) > _SHOWN_COLUMNS)
            reasons.append(
                f"{file.name} has the columns {shown}, none of them known as the {missing} column: "
                f"rename it to {'image_id' if missing == 'image' else missing}."
            )
    reasons += [
        f"{entry.name} is a spreadsheet, which is not supported: save it as 'CSV UTF-8'."
        for entry in sorted(path.iterdir())
        if entry.suffix.lower() in _SPREADSHEETS and not entry.name.startswith((".", "~"))
    ]
    reasons += [
        f"{folder} has the layout of {name}: specify that folder."
        for folder, name in _known_below(path)[:_SHOWN_FOLDERS]
    ]
    if not index_images(path).locations:
        reasons.append("It contains no image.")
    return reasons


def _known_below(path: Path, depth: int = 1) -> list[tuple[Path, str]]:
    """Return the folders in `path` that a source reads, else those in its only folder."""
    folders = [e for e in sorted(path.iterdir()) if e.is_dir() and not e.name.startswith(".")]
    known = [
        (folder, name)
        for folder in folders
        for name, source in SOURCES.items()
        if source().detect(folder)
    ]
    if not known and len(folders) == 1 and depth < _MAX_DEPTH:
        return _known_below(folders[0], depth + 1)
    return known
