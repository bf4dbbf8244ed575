"""The record of a calibration list: its images, how they were drawn, and their disjointness."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from lesiontk.document import Record


@dataclass(frozen=True, slots=True, kw_only=True)
class DrawnList(Record):
    """The `images` of a list, counted by label, body site and brightness.

    Brightness is the quarter of the training images by mean luma, separated at `brightness_edges`
    of 255. `draw` is the weighting of the classes, or ``list`` for the images of the named `list`;
    within a class the draw covers the axes of `cover`. `disjoint_from` counts, by subset, the
    images that were compared by id, lesion and pixels, of which none is in the list.
    """

    images: int
    images_by_label: Mapping[str, int]
    images_by_site: Mapping[str, int]
    images_by_brightness: Mapping[str, int]
    brightness_edges: tuple[float, ...]
    sites_of_training: int
    draw: str
    cover: tuple[str, ...]
    list: str | None
    seed: int
    observer: str
    split_hash: str
    disjoint_from: Mapping[str, int]
    pixel_sha256: Mapping[str, str] = field(default_factory=dict)
