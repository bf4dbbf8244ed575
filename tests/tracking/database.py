"""All that a tracking store has, as text."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any


def dump(database: Path) -> str:
    """Return every value of a database but for the places that the store gives to files."""
    found: list[str] = []
    with closing(sqlite3.connect(database)) as connection:
        tables = [row[0] for row in connection.execute("SELECT name FROM sqlite_master "
                                                       "WHERE type = 'table'")]  # fmt: skip
        for table in tables:
            cursor = connection.execute(f'SELECT * FROM "{table}"')
            names = [column[0] for column in cursor.description]
            for row in cursor:
                pairs: list[tuple[str, Any]] = list(zip(names, row, strict=True))
                found += [str(v) for name, v in pairs
                          if name not in ("artifact_location", "artifact_uri")]  # fmt: skip
    return "\n".join(found)
