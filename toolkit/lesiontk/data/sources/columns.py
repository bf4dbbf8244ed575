"""Known column names of tables, from ``table_columns.yaml``, for all data sets."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

from lesiontk.data.sources.table import (
    Table,
    TableRow,
    first_column,
    is_empty,
    is_unknown,
)
from lesiontk.data.tasks import canonical_diagnosis, load_task
from lesiontk.errors import DataError
from lesiontk.files.strict_yaml import load_yaml

_LONGEST = 200
ROLES = ("image", "file", "diagnosis", "lesion", "patient", "age", "sex", "site")


@dataclass(frozen=True, slots=True)
class Columns:
    """The columns of one table by role, or None for a role without a column."""

    image: str | None
    file: str | None
    diagnosis: tuple[str, ...]
    lesion: str | None
    patient: str | None
    age: str | None
    sex: str | None
    site: str | None

    @property
    def describe_images(self) -> bool:
        """Whether there is a column for the image and one for its diagnosis."""
        return bool((self.image or self.file) and self.diagnosis)


def choose_columns(names: Iterable[str]) -> Columns:
    """Return the roles of a table's columns."""
    present = set(names)
    known = column_names()
    single = {role: first_column(present, known[role]) for role in ROLES if role != "diagnosis"}
    return Columns(
        diagnosis=tuple(name for name in known["diagnosis"] if name in present), **single
    )


def is_ignored(name: str) -> bool:
    """Return whether a file name is that of a table known to describe no images."""
    return name.lower() in _document()["ignored"]


def column_names() -> Mapping[str, list[str]]:
    """Return the known column names of each of `ROLES`."""
    return {role: _document()[role] for role in ROLES}


def read_diagnoses(table: Table, columns: Iterable[str]) -> dict[int, tuple[str, ...]]:
    """Return line number -> diagnoses of the row, from the finest to the coarsest.

    Empty cells are left out; "unknown" comes last, for tasks that have a label for it. Raises
    `DataError` for a row without any, and for one whose columns contradict each other.
    """
    columns = tuple(columns)
    words = {column: _words_of(table, column) for column in columns}
    found = {}
    for row in table.rows:
        cells = {
            column: words[column].get(cell, cell).lower()
            for column in columns
            if not is_empty(cell := row.cells[column])
        }
        if not cells:
            table.required(row, columns[0])
        for column, cell in cells.items():
            if len(cell) > _LONGEST:
                raise DataError(
                    f"{table.where(row)}: {column} has {len(cell):,} characters; expected a "
                    f"diagnosis of at most {_LONGEST}. An earlier quote may be unclosed."
                )
        _refuse_contradiction(table, row, cells)
        names = dict.fromkeys(cells.values())  # each once, in order
        found[row.line] = (
            *(name for name in names if not is_unknown(name)),
            *(["unknown"] if any(map(is_unknown, names)) else []),
        )
    return found


def _words_of(table: Table, column: str) -> Mapping[str, str]:
    """Return value -> word for a column of numeric codes, else an empty mapping."""
    words: Mapping[str, str] = _document()["values"].get(column, {})
    return words if all(row.cells[column] in words for row in table.rows) else {}


def _refuse_contradiction(table: Table, row: TableRow, cells: Mapping[str, str]) -> None:
    """Raise `DataError` if one column says benign and another malignant."""
    mapping = _malignancy()
    stated: dict[str, str] = {}
    for column, cell in cells.items():
        code = canonical_diagnosis(cell)
        # Data sets differ in whether actinic keratoses are malignant.
        label = mapping.get(code) if code != "akiec" else None
        if label is not None and stated.setdefault(label, column) and len(stated) > 1:
            benign, malignant = stated["benign"], stated["malignant"]
            raise DataError(
                f"{table.where(row)}: {benign} is {row.cells[benign]!r}, which is benign, and "
                f"{malignant} is {row.cells[malignant]!r}, which is malignant; expected one of "
                "them. Correct or remove the row."
            )


@cache
def _malignancy() -> Mapping[str, str]:
    return load_task("malignancy").mapping


@cache
def _document() -> dict[str, Any]:
    text = resources.files("lesiontk.data").joinpath("table_columns.yaml").read_text("utf-8")
    document: dict[str, Any] = load_yaml(text)
    return document
