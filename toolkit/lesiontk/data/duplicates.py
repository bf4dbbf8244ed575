"""Repeated images of a data set: identical pixels, copies and near-duplicates."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lesiontk.data.image_table import InspectedImage, NearPair
from lesiontk.data.similarity import LISTED_CLUSTER, cluster_near, list_near_pairs
from lesiontk.data.tasks import canonical_diagnosis
from lesiontk.document import Record

COPY_DISTANCE = 8
"""Distance in bits of 256 up to which an image counts as a re-encoded copy.

300 images of HAM10000: all within 7 of their JPEG copies of quality 80 and 90, and 99 in 100 within
8 when enlarged twice; no two lesions of HAM10000's 10,015 images are within 10.
"""
LISTED_PAIRS = 10_000
LISTED_GROUPS, LISTED_IDS = 20, 10


@dataclass(frozen=True, slots=True)
class Crowd(Record):
    """A cluster of near-duplicates with too many images to list its pairs; `first` names it."""

    first: str
    images: int


@dataclass(frozen=True, slots=True)
class Contradictions(Record):
    """How many `pictures` have several diagnoses; `examples` name an image for each diagnosis."""

    pictures: int
    examples: tuple[Mapping[str, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class DuplicateCounts(Record):
    """How often images repeat.

    `identical_pixels` are groups of image ids, of `identical_groups`. Contradictions are among
    identical pixels and among copies. `near_duplicates` counts pairs within
    `near_duplicate_distance` bits of 256 that are not identical.
    """

    identical_pixels: tuple[tuple[str, ...], ...]
    identical_groups: int
    contradictions: Contradictions
    contradictions_of_copies: Contradictions
    near_duplicates: int
    near_duplicates_across_lesions: int
    near_duplicates_listed: int
    near_duplicate_distance: int
    crowds: tuple[Crowd, ...]


@dataclass(frozen=True, slots=True)
class Duplicates:
    """`copies` and `alike` name each image's cluster after its first image.

    `copies` are images with the same pixels or within `COPY_DISTANCE`, `alike` those within the
    requested distance.
    """

    copies: list[str]
    alike: list[str]
    pairs: list[NearPair]
    counts: DuplicateCounts


def find_duplicates(
    images: Sequence[InspectedImage], hashes: NDArray[np.uint64], max_distance: int
) -> Duplicates:
    """Return the duplicates among images with difference hashes uint64 [N, 4]."""
    ids = [image.image_id for image in images]
    alike = cluster_near(hashes, max_distance)
    copies = cluster_near(hashes, min(COPY_DISTANCE, max_distance))
    pairs = list_near_pairs(hashes, alike, max_distance)
    pixels = _codes([image.pixel_sha256 for image in images])
    lesions = _codes([image.lesion_id or image.image_id for image in images])
    one, two = pairs[:, 0], pairs[:, 1]
    pairs = pairs[pixels[one] != pixels[two]]
    across = lesions[pairs[:, 0]] != lesions[pairs[:, 1]]
    identical = _list_identical(images)
    sizes = np.bincount(alike, minlength=1)
    counts = DuplicateCounts(
        identical_pixels=tuple(tuple(group[:LISTED_IDS]) for group in identical[:LISTED_GROUPS]),
        identical_groups=len(identical),
        contradictions=_find_contradictions(images, pixels),
        contradictions_of_copies=_find_contradictions(images, copies),
        near_duplicates=len(pairs),
        near_duplicates_across_lesions=int(across.sum()),
        near_duplicates_listed=min(len(pairs), LISTED_PAIRS),
        near_duplicate_distance=max_distance,
        crowds=tuple(
            Crowd(ids[int(first)], int(sizes[first]))
            for first in np.argsort(-sizes, kind="stable")[:LISTED_GROUPS]
            if sizes[first] > LISTED_CLUSTER
        ),
    )
    listed = [
        NearPair(ids[int(i)], ids[int(j)], int(distance), not apart)
        for (i, j, distance), apart in zip(
            pairs[:LISTED_PAIRS], across[:LISTED_PAIRS].tolist(), strict=True
        )
    ]
    return Duplicates([ids[i] for i in copies], [ids[i] for i in alike], listed, counts)


def _codes(values: Sequence[object]) -> NDArray[np.int64]:
    """Return an integer code for each value; equal values have equal codes."""
    numbers: dict[object, int] = {}
    return np.array([numbers.setdefault(value, len(numbers)) for value in values], np.int64)


def _list_identical(images: Sequence[InspectedImage]) -> list[list[str]]:
    by_pixels: dict[str, list[str]] = defaultdict(list)
    for image in images:
        by_pixels[image.pixel_sha256].append(image.image_id)
    return sorted(ids for ids in by_pixels.values() if len(ids) > 1)


def _find_contradictions(
    images: Sequence[InspectedImage], pictures: NDArray[np.int64]
) -> Contradictions:
    """Return how many of `pictures` have several diagnoses, and which.

    `pictures` is the picture number of each image. An example has an image id for each diagnosis.
    """
    found: dict[int, dict[str, str]] = defaultdict(dict)
    for image, picture in zip(images, pictures.tolist(), strict=True):
        found[picture].setdefault(canonical_diagnosis(image.diagnosis), image.image_id)
    contradictory = [examples for examples in found.values() if len(examples) > 1]
    return Contradictions(len(contradictory), tuple(contradictory[:LISTED_GROUPS]))
