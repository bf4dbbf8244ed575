"""Prepared images without pixels worth looking at, for tests of what is drawn from them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from lesiontk.data.images import ImageSet, PreparedImages
from lesiontk.data.tasks import load_task
from lesiontk.records import Preprocessing


class Row(NamedTuple):
    """One image: its side, label and lesion."""

    subset: str
    label: str
    lesion: str


def make_rows(subset: str, lesions: dict[str, int], images: int = 1) -> list[Row]:
    """Label -> number of lesions on that side, each with so many images."""
    return [
        Row(subset, label, f"{subset}_{label}_{number}")
        for label, count in lesions.items()
        for number in range(count)
        for _ in range(images)
    ]


def make_image_set(rows: Sequence[Row], labels: Sequence[str] = ("bkl", "mel", "nv")) -> ImageSet:
    """Images ``IMG_0000``, ... in the order of `rows`, each with a pixel hash of its own."""
    return ImageSet(
        pixels=np.zeros((len(rows), 8, 8, 3), np.uint8),
        targets=np.array([list(labels).index(row.label) for row in rows], np.int64),
        image_ids=tuple(f"IMG_{number:04d}" for number in range(len(rows))),
        groups=tuple(row.lesion for row in rows),
        hashes=tuple(f"pixels of {number}" for number in range(len(rows))),
        subsets=tuple(row.subset for row in rows),
        labels=tuple(labels),
        task="three_class",
        critical="mel",
        preprocessing=Preprocessing(8),
        split_hash="0" * 64,
    )


def make_prepared(**fields: Any) -> PreparedImages:
    """Return the facts of prepared images, of the task seven_class unless given."""
    known = {
        "images": 3,
        "preprocessing": Preprocessing(8),
        "split_hash": "5" * 64,
        "leaky": False,
        "task": load_task("seven_class"),
        "licence": "CC0",
        "citation": "",
    }
    return PreparedImages(**{**known, **fields})
