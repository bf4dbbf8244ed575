"""Reading of data sources' tables: CSV in the variants found in practice.

Comma, tab, semicolon or bar, also after Excel's line ``sep=;``; UTF-8 with or without byte-order
mark, UTF-16 with one; any line ending; stray spaces; a file, or a member of a zip archive.
Ambiguous or broken content is an error with its line number.
"""

from __future__ import annotations

import codecs
import csv
import hashlib
import io
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from lesiontk.data.sources.zip_members import list_members, read_member
from lesiontk.errors import DataError
from lesiontk.files.regular_file import open_regular, read_regular

MAX_TABLE_BYTES = 1_000_000_000
TABLE_SUFFIXES = (".csv", ".tsv", ".tab", ".txt")
_HEADER_BYTES = 65_536
_SEPARATOR_LINE = re.compile(r'\A"?sep=[,;|\t]"?(?=[\r\n])', re.IGNORECASE)
_EMPTY = frozenset(("", "nan", "none", "null"))
_NOT_KNOWN = _EMPTY | {"na", "n/a", "unknown"}


@dataclass(frozen=True, slots=True)
class TableFile:
    """The location of a table: a file, or a member of the zip archive `path`."""

    path: Path
    member: str = ""

    @property
    def name(self) -> str:
        """The name used in messages."""
        return f"{self.path.name}::{self.member}" if self.member else self.path.name

    @property
    def stem(self) -> str:
        return PurePosixPath(self.member or self.path.name).stem

    @property
    def suffix(self) -> str:
        return PurePosixPath(self.member or self.path.name).suffix

    def read(self) -> bytes:
        """Return the bytes. Raises `DataError` if it is too large or not a regular file."""
        if self.member:
            return read_member(self.path, self.member, limit=MAX_TABLE_BYTES)
        return read_regular(self.path, "table", limit=MAX_TABLE_BYTES)

    def read_head(self) -> bytes:
        """Return no more than the first 64 KiB."""
        if self.member:
            return read_member(self.path, self.member, first=_HEADER_BYTES)
        with open_regular(self.path, "table") as stream:
            return stream.read(_HEADER_BYTES)


@dataclass(frozen=True, slots=True)
class TableRow:
    """One row: its line number in the file, and its cells by column name."""

    line: int
    cells: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Table:
    """A whole table; column names are stripped and in lower case, cells are stripped."""

    path: Path
    columns: tuple[str, ...]
    rows: tuple[TableRow, ...]
    sha256: str

    def where(self, row: TableRow) -> str:
        """Return the position of a row for a message."""
        return f"{self.path.name}, row {row.line}"

    def required(self, row: TableRow, column: str) -> str:
        """Return a cell. Raises `DataError` if it is empty."""
        value = row.cells[column]
        if value.lower() in _EMPTY:
            raise DataError(
                f"{self.where(row)}: {column} is {value!r}; expected a value. Complete or "
                "remove the row."
            )
        return value

    def optional(self, row: TableRow, column: str | None) -> str | None:
        """Return a cell, or None for a missing column or an unknown value."""
        value = row.cells.get(column, "") if column is not None else ""
        return None if value.lower() in _NOT_KNOWN else value

    def age(self, row: TableRow, column: str | None) -> float | None:
        """Return an age in years, or None if unknown."""
        value = self.optional(row, column)
        if value is None:
            return None
        try:
            age = float(value.replace(",", "."))  # 45,5 as in German tables
        except ValueError:
            age = math.nan
        if not 0 <= age <= 130:
            raise DataError(
                f"{self.where(row)}: {column} is {value!r}; expected years, 0 to 130. Correct it "
                "or leave it empty."
            )
        return age


def read_table(file: TableFile | Path) -> Table:
    """Return a table's rows without blank lines.

    Raises `DataError` for an empty file, another encoding than UTF-8 or UTF-16, repeated column
    names, cells of more than 128 KiB, or a row with another number of cells than the header.
    """
    if isinstance(file, Path):
        file = TableFile(file)
    path = file.path / file.member
    data = file.read()
    try:
        text = _without_separator_line(data.decode(_encoding(data)))
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path} is not UTF-8 text ({error.reason} at byte {error.start}); expected a table. "
            "Save it as 'CSV UTF-8'."
        ) from error
    if "\0" in text:
        raise DataError(
            f"{path} has null bytes, the first as character {text.index(chr(0))}; expected a table "
            "as text. Save it as 'CSV UTF-8'."
        )
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=_delimiter(text), strict=True)
    rows: list[TableRow] = []
    columns: tuple[str, ...] = ()
    try:
        for cells in reader:
            stripped = [cell.strip() for cell in cells]
            if not any(stripped):
                continue
            if not columns:
                columns = _columns_from_header(path, stripped)
                continue
            while len(stripped) > len(columns) and not stripped[-1]:
                stripped.pop()
            if len(stripped) != len(columns):
                raise DataError(
                    f"{path.name}, row {reader.line_num}: received {len(stripped)} cells; expected "
                    f"{len(columns)}, as in the header. Correct the row."
                )
            rows.append(TableRow(reader.line_num, dict(zip(columns, stripped, strict=True))))
    except csv.Error as error:
        raise DataError(
            f"{path.name}, row {reader.line_num}: {error}; expected a CSV table. Correct the row; "
            "an unclosed quote extends its cell to the end of the file."
        ) from error
    if not rows:
        raise DataError(f"{path} has no rows; expected a header and one row for each image.")
    return Table(path, columns, tuple(rows), hashlib.sha256(data).hexdigest())


def read_columns(file: TableFile) -> tuple[str, ...]:
    """Return the column names of a file, or nothing if it is not a table.

    Reads no more than 64 KiB.
    """
    head = file.read_head()
    text = head.decode(_encoding(head), errors="replace")
    text = _without_separator_line(text).lstrip("\r\n")
    lines = text.splitlines()
    if not lines or "\0" in lines[0] or "\N{REPLACEMENT CHARACTER}" in lines[0]:
        return ()
    try:
        cells = next(csv.reader([lines[0]], delimiter=_delimiter(text)))
    except csv.Error:
        return ()
    return tuple(cell.strip().lower() for cell in cells)


def tables_with(folder: Path, columns: Iterable[str], *, deep: bool = False) -> list[TableFile]:
    """Return the tables in `folder`, and with `deep` in its folders, that have all `columns`."""
    required = set(columns)
    return [file for file in list_tables(folder, deep=deep) if required <= set(read_columns(file))]


def list_tables(folder: Path, *, deep: bool = False) -> list[TableFile]:
    """Return the files in `folder` that may be tables, by name, in order.

    If there is none, returns those in the zip archives of the folder (a data set as downloaded).
    """
    patterns = ("*", "*/*") if deep else ("*",)
    files = sorted(
        path
        for pattern in patterns
        for path in folder.glob(pattern)
        if path.is_file() and not path.name.startswith(".")
    )
    tables = [TableFile(path) for path in files if may_be_table(path.name)]
    if any(map(read_columns, tables)):
        return tables
    return [*tables, *_list_archived(path for path in files if path.suffix.lower() == ".zip")]


def _list_archived(archives: Iterable[Path]) -> Iterator[TableFile]:
    for path in archives:
        for member in sorted(list_members(path)):
            name = PurePosixPath(member)
            if name.suffix and len(name.parts) <= 2 and may_be_table(name.name):
                yield TableFile(path, member)


def may_be_table(name: str) -> bool:
    """Return whether a file of this name may be a table."""
    suffix = PurePosixPath(name).suffix.lower()
    return suffix in ("", *TABLE_SUFFIXES) and not name.startswith(".")


def _encoding(data: bytes) -> str:
    utf16 = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    return "utf-16" if utf16 else "utf-8-sig"


def is_empty(cell: str) -> bool:
    """Return whether a cell is empty."""
    return cell.lower() in _EMPTY


def is_unknown(cell: str) -> bool:
    """Return whether a cell is empty or marks an unknown value."""
    return cell.lower() in _NOT_KNOWN


def first_column(columns: Iterable[str], names: Iterable[str]) -> str | None:
    """Return the first of `names` that is a column."""
    present = set(columns)
    return next((name for name in names if name in present), None)


def _without_separator_line(text: str) -> str:
    """Return the text with Excel's ``sep=;`` blanked, so that lines keep their numbers."""
    return _SEPARATOR_LINE.sub("", text, count=1)


def _delimiter(text: str) -> str:
    header = text.lstrip("\r\n").partition("\n")[0]
    return max(",\t;|", key=header.count)


def _columns_from_header(path: Path, cells: list[str]) -> tuple[str, ...]:
    while cells and not cells[-1]:
        cells.pop()
    # pandas writes its index as a first column without a name
    names = [cell.lower() or f"column {number}" for number, cell in enumerate(cells, 1)]
    repeated = {name for name in names if names.count(name) > 1}
    if repeated:
        raise DataError(
            f"{path.name}: duplicate column {', '.join(sorted(repeated))}; expected each column "
            "once. Rename one."
        )
    return tuple(names)
