"""Which images an engine has seen: splits by their hash, of the workspace or shipped."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import resources
from importlib.resources.abc import Traversable

from lesiontk.data.split_stage import TABLE
from lesiontk.records import Artefact, ImageRecord


@dataclass(frozen=True, slots=True)
class KnownSplit:
    """The side of every image and of every lesion of a split."""

    images: Mapping[str, str]
    lesions: Mapping[str, str]

    def side_of(self, record: ImageRecord) -> str | None:
        """Return the side on which an image, or another picture of its lesion, stands."""
        by_lesion = self.lesions.get(record.lesion_id) if record.lesion_id else None
        return self.images.get(record.image_id, by_lesion)


def find_split(split_hash: str, artefacts: Iterable[Artefact]) -> KnownSplit | None:
    """Return the split with that hash, or None where nobody knows it.

    `artefacts` are the splits of the workspace. Shipped are the splits of published engines.
    """
    for artefact in artefacts:
        if artefact.facts["split_hash"] == split_hash:
            return _read_sides(artefact.file(TABLE).read_text())
    shipped = locate_shipped(split_hash)
    return _read_sides(shipped.read_text()) if split_hash and shipped.is_file() else None


def locate_shipped(split_hash: str) -> Traversable:
    """Return where a split is if it is shipped: called after its hash's first twelve digits."""
    return resources.files("lesiontk.recipes").joinpath("splits", f"{split_hash[:12]}.csv")


def _read_sides(text: str) -> KnownSplit:
    rows = list(csv.DictReader(text.splitlines()))
    return KnownSplit(
        images={row["image_id"]: row["side"] for row in rows},
        lesions={row["lesion_id"]: row["side"] for row in rows if row["lesion_id"]},
    )
