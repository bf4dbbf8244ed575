"""Splits by their hash, from the workspace or packaged, to find the images an engine has seen."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib import resources
from importlib.resources.abc import Traversable

from lesiontk.errors import DataError
from lesiontk.records import Artefact, ImageRecord
from lesiontk.stages.split import TABLE


def check_own_split(name: str, trained_on: str, split_hash: str) -> None:
    """Raise `DataError` for a network or an engine of another split than these images.

    `name` is shown; the hashes are those of the splits.
    """
    if trained_on != split_hash:
        raise DataError(
            f"{name} was trained on the split {trained_on[:12]}; received images of the split "
            f"{split_hash[:12]}, some of which may be its training images. Expected the images and "
            "the split of its training (--data, --set data.split.…)."
        )


@dataclass(frozen=True, slots=True)
class KnownSplit:
    """The subset of every image, of every lesion and of every patient of a split."""

    images: Mapping[str, str]
    lesions: Mapping[str, str]
    patients: Mapping[str, str] = field(default_factory=dict)

    def subset_of(self, record: ImageRecord) -> str | None:
        """Return the subset of an image, or of another image of its lesion or patient."""
        known = (
            self.images.get(record.image_id),
            self.lesions.get(record.lesion_id or ""),
            self.patients.get(record.patient_id or ""),
        )
        return next(filter(None, known), None)


def find_split(split_hash: str, artefacts: Iterable[Artefact]) -> KnownSplit | None:
    """Return the split with that hash, or None if it is unknown.

    `artefacts` are the splits of the workspace. The splits of published engines are packaged.
    """
    for artefact in artefacts:
        if artefact.facts["split_hash"] == split_hash:
            return _read_sides(artefact.file(TABLE).read_text())
    shipped = locate_packaged(split_hash)
    return _read_sides(shipped.read_text()) if split_hash and shipped.is_file() else None


def locate_packaged(split_hash: str) -> Traversable:
    """Return the path of a packaged split, named after the first twelve digits of its hash."""
    return resources.files("lesiontk.recipes").joinpath("splits", f"{split_hash[:12]}.csv")


def _read_sides(text: str) -> KnownSplit:
    rows = list(csv.DictReader(text.splitlines()))
    return KnownSplit(
        images={row["image_id"]: row["subset"] for row in rows},
        lesions={row["lesion_id"]: row["subset"] for row in rows if row["lesion_id"]},
        patients={row["patient_id"]: row["subset"] for row in rows if row.get("patient_id")},
    )
