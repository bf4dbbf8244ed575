"""The record of a data set's inspection: counts, broken, repeated and contradictory images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from lesiontk.data.duplicates import DuplicateCounts
from lesiontk.document import Record


@dataclass(frozen=True, slots=True)
class BrokenImage(Record):
    """An image that cannot be read; `reason` is that of `ImageError`."""

    image_id: str
    reason: str


@dataclass(frozen=True, slots=True)
class Ages(Record):
    """The number of images with a `known` age of the patient, and the quartiles in years."""

    known: int
    quartiles: tuple[float, float, float] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspection(DuplicateCounts):
    """The usable images of a data source, and the faults of the others.

    `sizes` counts the most frequent image sizes, as ``600x450``. `sex` and `site` count images,
    ``unknown`` where the source does not state it. `missing_files` are listed images without a
    file, `unlisted_files` counts the files that no table lists.
    """

    source: str
    licence: str
    citation: str
    lesion_ids_known: bool
    images: int
    lesions: int
    patients: int
    lesions_with_several_images: int
    lesions_with_several_diagnoses: int
    images_by_diagnosis: Mapping[str, int]
    lesions_by_diagnosis: Mapping[str, int]
    broken: tuple[BrokenImage, ...]
    missing_files: tuple[str, ...]
    unlisted_files: int
    sizes: Mapping[str, int]
    age: Ages
    sex: Mapping[str, int]
    site: Mapping[str, int]
