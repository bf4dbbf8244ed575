"""The Pareto front of engines, and the placement of labels on a plot. No plotting."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class EnginePoint:
    """One engine on the accuracy-latency plane: median in ms, score 0..1 with interval, bytes."""

    name: str
    latency_ms: float
    score: float
    low: float | None
    high: float | None
    size_bytes: int


def find_pareto_front(points: Sequence[EnginePoint]) -> tuple[int, ...]:
    """Return the indices of the non-dominated engines, fastest first.

    An engine is dominated if another is as fast and as good, and faster or better. Of two equal
    engines neither is dominated.
    """

    def is_dominated(point: EnginePoint) -> bool:
        return any(
            other.latency_ms <= point.latency_ms
            and other.score >= point.score
            and (other.latency_ms < point.latency_ms or other.score > point.score)
            for other in points
        )

    front = [index for index, point in enumerate(points) if not is_dominated(point)]
    return tuple(sorted(front, key=lambda index: (points[index].latency_ms, index)))


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle, in points of the figure."""

    left: float
    bottom: float
    right: float
    top: float

    def shared_area(self, other: Box) -> float:
        """Return the area of the intersection."""
        width = min(self.right, other.right) - max(self.left, other.left)
        height = min(self.top, other.top) - max(self.bottom, other.bottom)
        return max(width, 0.0) * max(height, 0.0)

    @property
    def area(self) -> float:
        """Width times height."""
        return (self.right - self.left) * (self.top - self.bottom)

    @property
    def centre(self) -> tuple[float, float]:
        """The coordinates x, y of the centre."""
        return (self.left + self.right) / 2, (self.bottom + self.top) / 2

    def nearest_to(self, other: Box) -> tuple[float, float]:
        """Return the point of this box that is nearest to the other's centre."""
        x, y = other.centre
        return min(max(x, self.left), self.right), min(max(y, self.bottom), self.top)


# Right, left, above, below, then the diagonals: the order of preference.
_DIRECTIONS = (0, 180, 90, 270, 45, 315, 135, 225, 22, 338, 158, 202, 68, 112, 248, 292)
_DISTANCES = (0.0, 8.0, 18.0, 30.0, 46.0, 66.0, 90.0)


def place_labels(
    anchors: Sequence[Box], sizes: Sequence[tuple[float, float]], obstacles: Sequence[Box],
    bounds: Box, gap: float = 4.0,
) -> list[Box]:  # fmt: skip
    """Return a box for each label, near its anchor and without overlaps if possible.

    `anchors` are the markers, `sizes` the labels' widths and heights. Labels are placed in order;
    without a free position a label is placed where it covers least.
    """
    placed: list[Box] = []
    for anchor, size in zip(anchors, sizes, strict=True):
        others = (*anchors, *placed, *obstacles)

        def covered(box: Box, others: tuple[Box, ...] = others) -> float:
            outside = box.area - box.shared_area(bounds)
            return round(outside + sum(box.shared_area(other) for other in others), 6)

        placed.append(min(_candidates(anchor, size, gap), key=covered))
    return placed


def needs_leader(label: Box, anchors: Sequence[Box], index: int, near: float = 24.0) -> bool:
    """Return whether a label needs a line to its marker, the anchor at `index`.

    It does if its distance to its marker's centre exceeds `near`, or the distance to another
    marker.
    """
    distances = [math.dist(label.nearest_to(anchor), anchor.centre) for anchor in anchors]
    return distances[index] > min([near, *distances[:index], *distances[index + 1 :]])


def _candidates(anchor: Box, size: tuple[float, float], gap: float) -> Iterator[Box]:
    """Yield boxes of `size` around the anchor, the nearest first."""
    width, height = size
    x, y = anchor.centre
    reach_x = (anchor.right - anchor.left + width) / 2 + gap
    reach_y = (anchor.top - anchor.bottom + height) / 2 + gap
    for distance in _DISTANCES:
        for degrees in _DIRECTIONS:
            cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
            # The label touches the anchor's frame in that direction, then moves by `distance`.
            scale = 1 / max(abs(cosine), abs(sine))
            centre_x = x + cosine * (scale * reach_x + distance)
            centre_y = y + sine * (scale * reach_y + distance)
            yield Box(
                centre_x - width / 2, centre_y - height / 2,
                centre_x + width / 2, centre_y + height / 2,
            )  # fmt: skip
