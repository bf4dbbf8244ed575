"""Proof that a calibration list contains only training images of a split."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lesiontk.calibration.draw import prove_disjoint, select_listed
from lesiontk.document import Record
from lesiontk.errors import DataError, LeakageError


@dataclass(frozen=True, slots=True)
class SplitTable:
    """The images of a split in its table's order; a missing hash is an empty text."""

    image_ids: tuple[str, ...]
    groups: tuple[str, ...]
    hashes: tuple[str, ...]
    subsets: tuple[str, ...]

    def indices(self, subset: str) -> NDArray[np.int64]:
        """Return the rows of one subset; an empty subset is an error."""
        rows = np.array(
            [i for i, name in enumerate(self.subsets) if name == subset], dtype=np.int64
        )
        if len(rows) == 0:
            raise DataError(f"the {subset} subset of the split has no image.")
        return rows


@dataclass(frozen=True, slots=True)
class ListProof(Record):
    """The numbers of images compared: in the list, in the other subsets, and by pixel hash."""

    images: int
    disjoint_from: Mapping[str, int]
    pixels_compared: bool
    pixels_confirmed: int


def table_from_rows(rows: Sequence[Mapping[str, str]]) -> SplitTable:
    """Return the table of a ``split.csv``; `DataError` for one without image ids or subsets."""
    if not rows or not {"image_id", "subset"} <= set(rows[0]):
        raise DataError("the split has no row, or no columns image_id and subset.")
    return SplitTable(
        image_ids=tuple(row["image_id"] for row in rows),
        groups=tuple(r.get("group") or r.get("lesion_id") or r["image_id"] for r in rows),
        hashes=tuple(row.get("pixel_sha256") or "" for row in rows),
        subsets=tuple(row["subset"] for row in rows),
    )


def check_rows(listed: Sequence[Mapping[str, str]], split: SplitTable) -> ListProof:
    """Return the proof that a list contains only training images.

    Raises `LeakageError` or `DataError` with the first wrong image: one that is not in the split,
    is listed twice, is in another subset, shares its lesion or its pixels with an image of another
    subset, or has other pixels than when the list was drawn.
    """
    rows = select_listed(split, [row["image_id"] for row in listed])
    compared = prove_disjoint(split, rows)
    for row in rows:
        if split.subsets[row] != "train":
            raise LeakageError(
                f"{split.image_ids[row]} of the list is in the subset {split.subsets[row]!r} of "
                "the split; calibrate on training images only."
            )
    hashes = dict(zip(split.image_ids, split.hashes, strict=True))
    confirmed = 0
    for entry in listed:
        recorded, current = entry.get("pixel_sha256") or "", hashes[entry["image_id"]]
        if recorded and current and recorded != current:
            raise DataError(
                f"{entry['image_id']} has other pixels than when the list was drawn (sha256 "
                f"{recorded[:12]} then, {current[:12]} now); use those images, or draw the list "
                "again."
            )
        confirmed += bool(recorded and current)
    return ListProof(len(rows), compared, all(split.hashes), confirmed)
