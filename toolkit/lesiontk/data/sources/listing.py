"""Matching of the images that a table lists with the files that exist."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from lesiontk.data.sources.image_index import ImageIndex, stem_of
from lesiontk.data.sources.source import SourceTable
from lesiontk.errors import DataError
from lesiontk.records import ImageRecord


@dataclass(frozen=True, slots=True)
class ListedImage:
    """One image as its table describes it; `row` names the place in a message."""

    row: str
    image_id: str
    diagnosis: str
    lesion_id: str | None = None
    age: float | None = None
    sex: str | None = None
    site: str | None = None
    patient_id: str | None = None
    coarser: tuple[str, ...] = ()


def source_table_from_listing(
    listed: Iterable[ListedImage],
    index: ImageIndex,
    *,
    locate: Callable[[ListedImage], str | None],
    licence: str,
    citation: str,
    metadata_sha256: str,
) -> SourceTable:
    """Return the listed images with their files, which `locate` finds.

    Raises `DataError` if an id is listed twice, two ids share a file, or no file is found at all.
    """
    rows: dict[str, str] = {}
    owners: dict[str, str] = {}
    records: list[ImageRecord] = []
    missing: list[str] = []
    covered: set[str] = set()
    for image in listed:
        if image.image_id in rows:
            raise DataError(
                f"{image.row}: duplicate image {image.image_id!r}, first in "
                f"{rows[image.image_id]}; "
                "expected each image once. Remove one of the rows."
            )
        rows[image.image_id] = image.row
        location = locate(image)
        if location is None:
            missing.append(image.image_id)
            continue
        if location in owners:
            raise DataError(
                f"{image.row}: {location} is also the file of {owners[location]}; expected one row "
                "for each file. Remove one of the rows."
            )
        owners[location] = image.row
        covered.add(location)
        if stem_of(location) == image.image_id:
            covered.update(index.by_stem.get(image.image_id, ()))
        records.append(
            ImageRecord(
                image_id=image.image_id,
                diagnosis=image.diagnosis,
                location=location,
                lesion_id=image.lesion_id,
                age=image.age,
                sex=image.sex,
                site=image.site,
                patient_id=image.patient_id,
                coarser=image.coarser,
            )
        )
    return SourceTable(
        records=tuple(records),
        missing=tuple(missing),
        unlisted=index.count_others(covered),
        licence=licence,
        citation=citation,
        lesion_ids_known=all(record.lesion_id or record.patient_id for record in records),
        metadata_sha256=metadata_sha256,
    )
