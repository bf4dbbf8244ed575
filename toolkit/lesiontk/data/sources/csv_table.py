"""Any table of images and diagnoses, with any of the known column names."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import ClassVar

from lesiontk.data.sources.columns import (
    choose_columns,
    column_names,
    is_ignored,
    read_diagnoses,
)
from lesiontk.data.sources.ham10000 import ham10000_tables
from lesiontk.data.sources.image_index import ImageIndex, index_images, stem_of, unique_ids
from lesiontk.data.sources.listing import ListedImage, source_table_from_listing
from lesiontk.data.sources.source import NOT_STATED, Source, SourceInfo, SourceTable
from lesiontk.data.sources.table import (
    Table,
    TableFile,
    list_tables,
    read_columns,
    read_table,
)
from lesiontk.errors import DataError


class CsvSource(Source):
    """One table; images by path relative to it, or by file name anywhere below the folder."""

    info: ClassVar[SourceInfo] = SourceInfo(
        name="csv",
        description="Images of your own with a table",
        layout=(
            "one table (.csv, .tsv) with a column for the image (image_id, isic_id, path, …) and "
            "one for the diagnosis (dx, diagnosis, label, target, …), optionally lesion_id, "
            "patient_id, age, sex, site; the images by path or by name below"
        ),
    )

    def _detect(self, path: Path) -> bool:
        tables = described_tables(path)
        return bool(tables) and not any(ham10000_tables(file.path.parent) for file in tables)

    def _read(self, path: Path) -> SourceTable:
        tables = described_tables(path)
        if len(tables) != 1:
            contents = ", ".join(table.name for table in tables) or "no such table"
            raise self._layout_error(path, f"contains {contents}")
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


def described_tables(path: Path) -> list[TableFile]:
    """Return the tables of the folder `path` with an image column and a diagnosis column.

    If `path` itself has none, returns those in a folder without images (derm7pt: ``meta/meta.csv``)
    or in the one folder that has all images (an unpacked archive).
    """
    if found := list(filter(describes_images, list_tables(path))):
        return found
    if not (found := list(filter(describes_images, list_tables(path, deep=True)))):
        return []
    locations = index_images(path, archives=False).locations
    with_images = {location.rpartition("/")[0].partition("/")[0] for location in locations}
    return [
        file for file in found if len(with_images) == 1 or file.path.parent.name not in with_images
    ]


def describes_images(file: TableFile) -> bool:
    """Return whether the table has a column for the image and one for its diagnosis."""
    return not is_ignored(file.name) and choose_columns(read_columns(file)).describe_images


def table_listing(table: Table) -> tuple[list[ListedImage], dict[str, str]]:
    """Return the table's images, and the path or name of each row's file."""
    columns = choose_columns(table.columns)
    file_column = columns.file or columns.image
    id_column = columns.image or columns.file
    if not columns.diagnosis or file_column is None or id_column is None:
        known = column_names()
        raise DataError(
            f"{table.path} has the columns {', '.join(table.columns)}; expected one of "
            f"{', '.join(known['image'] + known['file'])} and one of "
            f"{', '.join(known['diagnosis'])}. Rename the columns."
        )
    names = {
        table.where(row): table.required(row, file_column).replace("\\", "/") for row in table.rows
    }
    ids = unique_ids([table.required(row, id_column).replace("\\", "/") for row in table.rows])
    diagnoses = read_diagnoses(table, columns.diagnosis)
    listed = [
        ListedImage(
            row=table.where(row),
            image_id=image_id,
            diagnosis=diagnoses[row.line][0],
            coarser=diagnoses[row.line][1:],
            lesion_id=table.optional(row, columns.lesion),
            patient_id=table.optional(row, columns.patient),
            age=table.age(row, columns.age),
            sex=table.optional(row, columns.sex),
            site=table.optional(row, columns.site),
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
    if index.contains(str(path)):
        return str(path)
    below = [found for found in index.by_stem.get(stem_of(name), ()) if found.endswith(f"/{path}")]
    return below[0] if len(below) == 1 else index.find(stem_of(name))
