"""The composition of a calibration list by class, body site and brightness."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from lesiontk.calibration.brightness import BANDS

AXES = ("label", "site", "brightness")
"""The columns of a list that are counted."""

UNKNOWN = "unknown"


def count_composition(
    rows: Sequence[Mapping[str, str]],
) -> dict[str, dict[str, dict[str, int]]]:
    """Return axis -> level -> class -> number of images; an axis without values is left out. For
    the axis ``label`` the inner mapping has only the class itself.
    """
    found: dict[str, dict[str, dict[str, int]]] = {}
    for axis in AXES:
        if not any(row.get(axis) for row in rows):
            continue
        counted = Counter(
            (str(row.get(axis) or UNKNOWN), str(row.get("label") or UNKNOWN)) for row in rows
        )
        levels: dict[str, dict[str, int]] = {}
        for (level, label), number in sorted(counted.items(), key=lambda e: _rank(*e[0])):
            levels.setdefault(level, {})[label] = number
        found[axis] = levels
    return found


def _rank(level: str, label: str) -> tuple[int, str, str]:
    """Return the sort key: bands of brightness from dark to bright, everything else by name."""
    return (BANDS.index(level) if level in BANDS else 0), level, label


def count_levels(levels: Mapping[str, Mapping[str, int]]) -> dict[str, int]:
    """Return level -> number of images of one axis, the most frequent first."""
    totals = {level: sum(by_label.values()) for level, by_label in levels.items()}
    return dict(sorted(totals.items(), key=lambda entry: (-entry[1], entry[0])))
