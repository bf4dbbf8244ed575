"""Why a folder is no data set that a source reads: said in words, for the error."""

from __future__ import annotations

from pathlib import Path

from lesiontk.data.sources.columns import choose_columns, is_ignored
from lesiontk.data.sources.image_index import index_images
from lesiontk.data.sources.table import list_tables, may_be_table, read_columns
from lesiontk.errors import DataError, shorten
from lesiontk.regular_file import check_regular

_SHOWN_TABLES, _SHOWN_COLUMNS, _MANY = 3, 10, 200


def explain_unknown(path: Path) -> list[str]:
    """Return sentences on the tables and images of the folder `path`, none where it has neither."""
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
            reasons.append(f"{file.name} is no table that can be read (CSV as UTF-8 text).")
        elif is_ignored(file.name) or len(names) > _MANY or names[0].startswith("pixel"):
            reasons.append(f"{file.name} lists no image files: lesiontk needs the pictures.")
        elif len(names) == 1:
            reasons.append(
                f"{file.name} has one column, {shorten(names[0])!r}; expected several, parted by "
                "comma, tab, semicolon or bar."
            )
        elif not columns.describe_images:
            lacks = "diagnosis" if columns.image or columns.file else "image"
            shown = ", ".join(map(shorten, names[:_SHOWN_COLUMNS]))
            shown += ", …" * (len(names) > _SHOWN_COLUMNS)
            reasons.append(
                f"{file.name} has the columns {shown}, none of which is known to hold the {lacks}: "
                f"rename the one that does to {'image_id' if lacks == 'image' else lacks}."
            )
    if not index_images(path).locations:
        reasons.append("There is no image below it.")
    return reasons
