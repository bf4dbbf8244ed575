"""Why a folder is no data set that a source reads: said in words, for the error."""

from __future__ import annotations

from pathlib import Path

from lesiontk.data.sources.columns import choose_columns, is_ignored
from lesiontk.data.sources.image_index import index_images
from lesiontk.data.sources.table import list_tables, read_columns

_SHOWN_TABLES, _SHOWN_COLUMNS, _MANY = 3, 10, 200


def explain_unknown(path: Path) -> list[str]:
    """Return sentences on the tables and images of the folder `path`, none where it has neither."""
    reasons = []
    for file in list_tables(path, deep=True)[:_SHOWN_TABLES]:
        names = read_columns(file)
        columns = choose_columns(names)
        if not names:
            reasons.append(f"{file.name} is no table that can be read (CSV as UTF-8 text).")
        elif is_ignored(file.name) or len(names) > _MANY or names[0].startswith("pixel"):
            reasons.append(f"{file.name} lists no image files: lesiontk needs the pictures.")
        elif len(names) == 1:
            reasons.append(
                f"{file.name} has one column, {names[0][:80]!r}; expected several, parted by "
                "comma, tab, semicolon or bar."
            )
        elif not columns.describe_images:
            lacks = "diagnosis" if columns.image or columns.file else "image"
            shown = ", ".join(names[:_SHOWN_COLUMNS]) + ", …" * (len(names) > _SHOWN_COLUMNS)
            reasons.append(
                f"{file.name} has the columns {shown}, none of which is known to hold the {lacks}: "
                f"rename the one that does to {'image_id' if lacks == 'image' else lacks}."
            )
    if not index_images(path).locations:
        reasons.append("There is no image below it.")
    return reasons
