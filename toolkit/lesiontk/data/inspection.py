"""What the inspection of a data set found: counts, what is broken, repeated or contradictory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from lesiontk.data.duplicates import DuplicateCounts
from lesiontk.document import Record


@dataclass(frozen=True, slots=True)
class BrokenImage(Record):
    """An image that cannot be read, with the kind of its fault."""

    image_id: str
    reason: str


@dataclass(frozen=True, slots=True)
class Ages(Record):
    """Of how many images the patient's age is known, and the quartiles in years."""

    known: int
    quartiles: tuple[float, float, float] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspection(DuplicateCounts):
    """The usable images of a data source, of lesions and patients, and what is wrong with others.

    `sizes` counts the most frequent image sizes, as ``600x450``. `sex` and `site` count images,
    ``unknown`` where the source does not say. `missing_files` are listed without a file,
    `unlisted_files` counts the files that no table lists.
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
