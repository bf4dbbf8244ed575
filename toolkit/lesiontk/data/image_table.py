"""The rows of the tables of images that stages write."""

from __future__ import annotations

from dataclasses import dataclass

from lesiontk.document import Record


@dataclass(frozen=True, slots=True, kw_only=True)
class InspectedImage(Record):
    """A usable image of a data source: what the source says of it, and its pixels' hash.

    `age` is in years. `coarser` are broader diagnoses, separated by ``|``. `copy_of` and `alike`
    are the clusters of `lesiontk.data.duplicates`, None before these are known.
    """

    image_id: str
    lesion_id: str | None
    diagnosis: str
    location: str
    age: int | float | None = None
    sex: str | None = None
    site: str | None = None
    width: int
    height: int
    pixel_sha256: str
    patient_id: str | None = None
    coarser: str | None = None
    copy_of: str | None = None
    alike: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class UnreadableImage(Record):
    """An image that cannot be used; `reason` is that of `ImageError`."""

    image_id: str
    location: str
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class NearPair(Record):
    """Two near-duplicates, and the `distance` of their difference hashes in bits of 256."""

    image_a: str
    image_b: str
    distance: int
    same_lesion: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitImage(Record):
    """An image of a split. Images of a `group` are in the same subset."""

    image_id: str
    lesion_id: str | None
    group: str
    diagnosis: str
    label: str
    subset: str
    location: str
    pixel_sha256: str
    patient_id: str | None = None
