"""Images with one-hot ground truth, as distributed by the ISIC challenges of 2018 and 2019."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import ClassVar

from lesiontk.data.sources.columns import choose_columns
from lesiontk.data.sources.image_index import index_images, stem_of
from lesiontk.data.sources.listing import ListedImage, source_table_from_listing
from lesiontk.data.sources.source import Source, SourceInfo, SourceTable
from lesiontk.data.sources.table import (
    Table,
    TableFile,
    TableRow,
    list_tables,
    read_columns,
    read_table,
    tables_with,
)
from lesiontk.errors import DataError
from lesiontk.files.hashing import hash_document

# 2018 has the first seven of these with AKIEC; 2019 has AK, SCC and UNK.
DIAGNOSES = ("mel", "nv", "bcc", "akiec", "ak", "bkl", "df", "vasc", "scc", "unk")
LICENCE = "CC BY-NC 4.0: non-commercial use, with attribution (ISIC challenge data)"
CITATION = (
    "Codella, N. et al.: Skin lesion analysis toward melanoma detection 2018, a challenge hosted "
    "by the International Skin Imaging Collaboration (ISIC). arXiv:1902.03368 (2019). Tschandl, "
    "P., Rosendahl, C., Kittler, H.: The HAM10000 dataset. Scientific Data 5, 180161 (2018). For "
    "2019 also: Combalia, M. et al.: BCN20000, dermoscopic lesions in the wild. arXiv:1908.02288 "
    "(2019)."
)


class IsicSource(Source):
    """A one-hot table, the images in any folder below, and optionally a table of lesion ids."""

    info: ClassVar[SourceInfo] = SourceInfo(
        name="isic",
        description="ISIC challenge data of 2018 (task 3) or 2019, with one-hot ground truth",
        layout=(
            "one ground-truth CSV (image, then MEL, NV, BCC, AKIEC or AK, BKL, DF, VASC and, in "
            "2019, SCC, UNK), the images in any folder or zip archive, and optionally a CSV with "
            "image and lesion_id"
        ),
    )

    def _detect(self, path: Path) -> bool:
        return bool(_truth_tables(path))

    def _read(self, path: Path) -> SourceTable:
        truths = _truth_tables(path)
        if len(truths) != 1:
            names = ", ".join(
                f"{file.path.relative_to(path)}{'::' * bool(file.member)}{file.member}"
                for file in truths
            )
            remedy = (
                "Specify the folder of one part, or move the others elsewhere." if truths else ""
            )
            raise self._layout_error(path, f"contains {names or 'no ground-truth CSV'}", remedy)
        truth = read_table(truths[0])
        listed, hashes = isic_listing(truth, path)
        index = index_images(path)
        return source_table_from_listing(
            listed,
            index,
            locate=lambda image: index.find(image.image_id),
            licence=LICENCE,
            citation=CITATION,
            metadata_sha256=hash_document([truth.sha256, *hashes]),
        )


def isic_listing(truth: Table, folder: Path) -> tuple[list[ListedImage], list[str]]:
    """Return the images of a one-hot table, and the hashes of the tables of lesions in `folder`."""
    details, hashes = _read_details(folder, truth.path)
    return [_listed_image(truth, row, details) for row in truth.rows], hashes


def _truth_tables(path: Path) -> list[TableFile]:
    """Return the tables with an image column and at least two diagnosis columns."""
    return [
        file
        for file in list_tables(path, deep=True)
        if "image" in (columns := read_columns(file)) and len(set(columns) & set(DIAGNOSES)) > 1
    ]


def _read_details(path: Path, truth: Path) -> tuple[dict[str, tuple[Table, TableRow]], list[str]]:
    """Return image -> row with its lesion id, from every other table with these two columns."""
    details: dict[str, tuple[Table, TableRow]] = {}
    hashes: list[str] = []
    for found in tables_with(path, ("image", "lesion_id"), deep=True):
        if found.path / found.member == truth:
            continue
        table = read_table(found)
        hashes.append(table.sha256)
        for row in table.rows:
            image = stem_of(table.required(row, "image"))
            other, known = details.setdefault(image, (table, row))
            if known.cells["lesion_id"] != row.cells["lesion_id"]:
                raise DataError(
                    f"{table.where(row)}: {image} is of lesion {row.cells['lesion_id']!r}, but of "
                    f"{known.cells['lesion_id']!r} in {other.where(known)}; expected one lesion. "
                    "Correct one of them."
                )
    return details, hashes


def _listed_image(
    truth: Table, row: TableRow, details: dict[str, tuple[Table, TableRow]]
) -> ListedImage:
    image_id = stem_of(truth.required(row, "image"))
    known = ListedImage(
        row=truth.where(row),
        image_id=image_id,
        diagnosis=_diagnosis_from_one_hot(truth, row),
        lesion_id=truth.optional(row, "lesion_id"),
        patient_id=truth.optional(row, "patient_id"),
    )
    if image_id not in details:
        return known
    table, detail = details[image_id]
    columns = choose_columns(table.columns)
    return replace(
        known,
        lesion_id=table.optional(detail, "lesion_id"),
        patient_id=table.optional(detail, columns.patient),
        age=table.age(detail, columns.age),
        sex=table.optional(detail, columns.sex),
        site=table.optional(detail, columns.site),
    )


def _diagnosis_from_one_hot(table: Table, row: TableRow) -> str:
    values = {name: row.cells[name] for name in DIAGNOSES if name in row.cells}
    try:
        numbers = {name: float(value) for name, value in values.items()}
    except ValueError:
        numbers = {}
    marked = [name for name, number in numbers.items() if number == 1.0]
    if len(marked) != 1 or any(number not in (0.0, 1.0) for number in numbers.values()):
        received = ", ".join(f"{name.upper()}={value}" for name, value in values.items())
        raise DataError(
            f"{table.where(row)}: {row.cells['image']} has {received}; expected exactly one 1 and "
            "zeros otherwise. Correct or remove the row."
        )
    return marked[0]
