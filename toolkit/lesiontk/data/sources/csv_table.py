"""Any table that names images and diagnoses, whatever it calls its columns."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import ClassVar

from lesiontk.data.sources.ham10000 import ham10000_tables
from lesiontk.data.sources.image_index import ImageIndex, index_images, stem_of, unique_ids
from lesiontk.data.sources.listing import ListedImage, source_table_from_listing
from lesiontk.data.sources.source import NOT_STATED, Source, SourceInfo, SourceTable
from lesiontk.data.sources.table import (
    Table,
    first_column,
    list_tables,
    read_columns,
    read_table,
)
from lesiontk.errors import DataError

# The first name that a table has is the one that counts.
FILE_COLUMNS = ("path", "image_path", "filepath", "filename", "file_name", "file")
ID_COLUMNS = ("image_id", "image", "image_name", "isic_id")
DIAGNOSIS_COLUMNS = ("dx", "diagnosis", "label", "class", "target")
LESION_COLUMNS = ("lesion_id", "lesion")
AGE_COLUMNS = ("age", "age_approx")
SEX_COLUMNS = ("sex", "gender")
SITE_COLUMNS = (
    "site",
    "localization",
    "localisation",
    "anatom_site_general",
    "anatom_site_general_challenge",
)


class CsvSource(Source):
    """One table; images by path relative to it, or by file name anywhere below the folder."""

    info: ClassVar[SourceInfo] = SourceInfo(
        name="csv",
        description="Images of your own with a table",
        layout=(
            "one table (.csv, .tsv) with a column for the image "
            f"({', '.join(ID_COLUMNS + FILE_COLUMNS)}) and one for the diagnosis "
            f"({', '.join(DIAGNOSIS_COLUMNS)}), optionally lesion_id, age, sex, site; the images "
            "by path or by name below"
        ),
    )

    def _detect(self, path: Path) -> bool:
        return bool(described_tables(path)) and not ham10000_tables(path)

    def _read(self, path: Path) -> SourceTable:
        tables = described_tables(path)
        if len(tables) != 1:
            held = ", ".join(table.name for table in tables) or "no such table"
            raise self._layout_error(path, f"holds {held}")
        table = read_table(tables[0])
        index = index_images(path)
        listed, names = table_listing(table)
        return source_table_from_listing(
            listed,
            index,
            locate=lambda image: locate_by_name(index, names[image.row], image.row),
            licence=NOT_STATED,
            citation=NOT_STATED,
            metadata_sha256=table.sha256,
        )


def described_tables(path: Path) -> list[Path]:
    """Return the tables in the folder `path` with an image column and a diagnosis column."""
    return [
        table
        for table in list_tables(path)
        if first_column(columns := read_columns(table), ID_COLUMNS + FILE_COLUMNS)
        and first_column(columns, DIAGNOSIS_COLUMNS)
    ]


def table_listing(table: Table) -> tuple[list[ListedImage], dict[str, str]]:
    """Return the table's images, and the path or name of each row's file."""

    def pick(names: tuple[str, ...]) -> str | None:
        return first_column(table.columns, names)

    diagnosis, lesion = pick(DIAGNOSIS_COLUMNS), pick(LESION_COLUMNS)
    age, sex, site = pick(AGE_COLUMNS), pick(SEX_COLUMNS), pick(SITE_COLUMNS)
    id_column = pick(ID_COLUMNS)
    file_column = pick(FILE_COLUMNS) or id_column
    if diagnosis is None or file_column is None:
        raise DataError(
            f"{table.path} has the columns {', '.join(table.columns)}; expected one of "
            f"{', '.join(ID_COLUMNS + FILE_COLUMNS)} and one of {', '.join(DIAGNOSIS_COLUMNS)}."
        )
    names = {
        table.where(row): table.required(row, file_column).replace("\\", "/") for row in table.rows
    }
    ids = unique_ids(
        [table.required(row, id_column or file_column).replace("\\", "/") for row in table.rows]
    )
    listed = [
        ListedImage(
            row=table.where(row),
            image_id=image_id,
            diagnosis=table.required(row, diagnosis).lower(),
            lesion_id=table.optional(row, lesion),
            age=table.age(row, age),
            sex=table.optional(row, sex),
            site=table.optional(row, site),
        )
        for row, image_id in zip(table.rows, ids, strict=True)
    ]
    return listed, names


def locate_by_name(index: ImageIndex, name: str, row: str) -> str | None:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts:
        raise DataError(
            f"{row}: {name!r} leaves the folder of the table; expected a path below it. Write "
            "paths relative to the table, or file names alone."
        )
    return str(path) if index.holds(str(path)) else index.find(stem_of(name))
