"""Images whose predicted class an engine changes: their order, and the results of stage ``flips``.

A flip from a positive (malignant) to another class is the costliest change, and comes first.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from lesiontk.document import Record
from lesiontk.errors import DataError
from lesiontk.explain.explanation import Heatmap

DOCUMENT, TABLE = "flips.json", "flips.csv"


class Direction(StrEnum):
    """Between which classes a flip is; positive are the task's malignant labels."""

    LOST = "positive_to_negative"
    RAISED = "negative_to_positive"
    WITHIN = "within"


ORDER = tuple(Direction)
"""The most costly first."""


@dataclass(frozen=True, slots=True)
class Flip(Record):
    """An image whose most probable class is `from_label` for the parent, `to_label` for the engine.

    `parent` and `engine` map each label to its probability. `picture` is the network's input, and
    `evidence` the heatmaps of both classes; None and empty for an image without pictures.
    """

    image_id: str
    group: str
    true_label: str
    from_label: str
    to_label: str
    direction: Direction
    parent: Mapping[str, float]
    engine: Mapping[str, float]
    picture: str | None = None
    evidence: tuple[Heatmap, ...] = ()


@dataclass(frozen=True, slots=True)
class Flips(Record):
    """All flips of the engine `target` against its `parent` on `judged` test images, by urgency.

    `reference` is True if the parent is of the network before compression. The first ones have
    pictures. `layer` is that of the heatmaps, empty without a flip.
    """

    target: str
    parent: str
    reference: bool
    judged: int
    layer: str
    positive: tuple[str, ...]
    flips: tuple[Flip, ...]

    @property
    def pictured(self) -> tuple[Flip, ...]:
        """The flips with pictures."""
        return tuple(flip for flip in self.flips if flip.picture is not None)

    @property
    def counts(self) -> dict[str, int]:
        """The number of flips in each direction, the most costly first."""
        found = Counter(flip.direction for flip in self.flips)
        return {direction.value: found[direction] for direction in ORDER}


def find_direction(from_label: str, to_label: str, positive: Sequence[str]) -> Direction:
    """Return whether a flip loses a positive label, raises one, or is between labels of a kind."""
    before, after = from_label in positive, to_label in positive
    if before == after:
        return Direction.WITHIN
    return Direction.LOST if before else Direction.RAISED


def order_flips(
    truth: NDArray[np.int64],
    parent: NDArray[np.float32],
    engine: NDArray[np.float32],
    labels: Sequence[str],
    positive: Sequence[str],
) -> list[int]:
    """Return the rows of all images whose arg-max differs, the most urgent first.

    Lost positives come first, then raised ones, then the rest; in each the images of a positive
    label before the others, and the largest change of the parent's class first. `truth` is [N],
    `parent` and `engine` are probabilities [N, C]. Raises `DataError` for other shapes.
    """
    if parent.shape != engine.shape or parent.shape != (len(truth), len(labels)):
        raise DataError(
            f"the predictions have shapes {list(parent.shape)} and {list(engine.shape)}; expected "
            f"[{len(truth)}, {len(labels)}] of both."
        )
    before, after = parent.argmax(axis=1), engine.argmax(axis=1)

    def urgency(row: int) -> tuple[int, bool, float, int]:
        direction = find_direction(labels[before[row]], labels[after[row]], positive)
        change = float(parent[row, before[row]] - engine[row, before[row]])
        return ORDER.index(direction), labels[truth[row]] not in positive, -change, row

    return sorted(np.flatnonzero(before != after).tolist(), key=urgency)
