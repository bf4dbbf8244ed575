"""HAM10000 as distributed, unpacked or not (Tschandl et al., Sci Data 5:180161, 2018)."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import ClassVar

from lesiontk.data.reader import ARCHIVE_SEPARATOR
from lesiontk.data.sources.image_index import index_images, without_suffix
from lesiontk.data.sources.listing import ListedImage, source_table_from_listing
from lesiontk.data.sources.source import Source, SourceInfo, SourceTable
from lesiontk.data.sources.table import Table, TableFile, TableRow, read_table, tables_with
from lesiontk.errors import DataError

COLUMNS = ("lesion_id", "image_id", "dx", "dx_type")
SYNTHETIC_DX_TYPE = "synthetic"
LICENCE = (
    "CC BY-NC 4.0: non-commercial use, with attribution to ViDIR Group, Department of Dermatology, "
    "Medical University of Vienna"
)
CITATION = (
    "Tschandl, P., Rosendahl, C., Kittler, H.: The HAM10000 dataset, a large collection of "
    "multi-source dermatoscopic images of common pigmented skin lesions. Scientific Data 5, 180161 "
    "(2018). doi:10.1038/sdata.2018.161"
)


class Ham10000Source(Source):
    """The metadata table, and the images in their two folders, any folder, or the two archives."""

    info: ClassVar[SourceInfo] = SourceInfo(
        name="ham10000",
        description="HAM10000: 10,015 dermatoscopic images of 7,470 lesions in seven classes",
        layout=(
            "HAM10000_metadata.csv (lesion_id, image_id, dx, dx_type, age, sex, localization; "
            "comma or tab) with HAM10000_images_part_1 and _part_2 as folders or zip archives, or "
            "the images in any folder"
        ),
    )

    def _detect(self, path: Path) -> bool:
        return bool(tables := ham10000_tables(path)) and not is_synthetic(tables[0])

    def _read(self, path: Path) -> SourceTable:
        table = read_ham10000_table(path, self.info)
        for row in table.rows:
            if row.cells["dx_type"] == SYNTHETIC_DX_TYPE:
                raise DataError(
                    f"{table.where(row)}: dx_type is {SYNTHETIC_DX_TYPE!r}; expected only "
                    "photographs. Keep synthetic images in a separate folder."
                )
        return table_from_ham10000(path, table, licence=LICENCE, citation=CITATION)


def ham10000_tables(path: Path) -> list[TableFile]:
    """Return the tables with HAM10000's columns: those with its name, else all."""
    tables = tables_with(path, COLUMNS)
    named = [table for table in tables if table.stem.lower() == "ham10000_metadata"]
    return named or tables


def is_synthetic(file: TableFile) -> bool:
    """Return whether every row of a table in HAM10000's layout marks its image as synthetic."""
    return all(row.cells["dx_type"] == SYNTHETIC_DX_TYPE for row in read_table(file).rows)


def read_ham10000_table(path: Path, info: SourceInfo) -> Table:
    """Return the one table with HAM10000's columns in the folder `path`."""
    tables = ham10000_tables(path)
    if len(tables) != 1:
        names = ", ".join(table.name for table in tables) or "no table with these columns"
        raise DataError(f"{path} contains {names}; expected one, as in: {info.layout}.")
    return read_table(tables[0])


def table_from_ham10000(path: Path, table: Table, *, licence: str, citation: str) -> SourceTable:
    """Return the images of a table in HAM10000's layout; their ids are the files' stems."""
    index = index_images(path)
    return source_table_from_listing(
        ham10000_listing(table),
        index,
        locate=lambda image: index.find(image.image_id, _rank),
        licence=licence,
        citation=citation,
        metadata_sha256=table.sha256,
    )


def ham10000_listing(table: Table) -> list[ListedImage]:
    """Return the images that a table with HAM10000's columns describes."""

    def optional(row: TableRow, column: str) -> str | None:
        return table.optional(row, column if column in table.columns else None)

    return [
        ListedImage(
            row=table.where(row),
            image_id=without_suffix(table.required(row, "image_id")),
            diagnosis=table.required(row, "dx").lower(),
            lesion_id=table.required(row, "lesion_id"),
            age=table.age(row, "age" if "age" in table.columns else None),
            sex=optional(row, "sex"),
            site=optional(row, "localization"),
            patient_id=optional(row, "patient_id"),
        )
        for row in table.rows
    ]


def _rank(location: str) -> int:
    """Return the rank of a location; the publisher's folder names are preferred to copies."""
    outer, _, member = location.partition(ARCHIVE_SEPARATOR)
    tops = {PurePosixPath(outer.removesuffix(".zip")).parts[0], *PurePosixPath(member).parts[:1]}
    if tops & {"HAM10000_images_part_1", "HAM10000_images_part_2"}:
        return 0
    return 1 if any(top.lower().startswith("ham10000_images_part_") for top in tops) else 2
