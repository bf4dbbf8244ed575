"""Which images an engine has seen: splits by their hash, of the workspace or shipped."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping
from importlib import resources

from lesiontk.data.split_stage import TABLE
from lesiontk.records import Artefact


def find_split(split_hash: str, artefacts: Iterable[Artefact]) -> Mapping[str, str] | None:
    """Return image id -> side of the split with that hash, or None where nobody knows it.

    `artefacts` are the splits of the workspace. Shipped are the splits of published engines, called
    after the first twelve digits of their hash.
    """
    for artefact in artefacts:
        if artefact.facts["split_hash"] == split_hash:
            return _read_sides(artefact.file(TABLE).read_text())
    shipped = resources.files("lesiontk.recipes").joinpath("splits", f"{split_hash[:12]}.csv")
    return _read_sides(shipped.read_text()) if split_hash and shipped.is_file() else None


def _read_sides(text: str) -> dict[str, str]:
    return {row["image_id"]: row["side"] for row in csv.DictReader(text.splitlines())}
