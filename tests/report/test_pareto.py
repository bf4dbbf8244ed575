"""The front is what no engine beats, and labels keep apart."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lesiontk.report.pareto import (
    Box,
    EnginePoint,
    find_pareto_front,
    needs_leader,
    place_labels,
)


def point(name: str, latency_ms: float, score: float) -> EnginePoint:
    return EnginePoint(name, latency_ms, score, score - 0.05, score + 0.05, 1_000_000)


@pytest.mark.parametrize(
    ("plane", "front"),
    [
        ([(1.0, 0.7)], [0]),
        ([(1.0, 0.7), (2.0, 0.8)], [0, 1]),
        ([(2.0, 0.8), (1.0, 0.7)], [1, 0]),
        ([(1.0, 0.8), (2.0, 0.7)], [0]),
        ([(1.0, 0.8), (2.0, 0.8)], [0]),
        ([(1.0, 0.7), (1.0, 0.8)], [1]),
        ([(1.0, 0.7), (1.0, 0.7)], [0, 1]),
        ([(3.0, 0.9), (1.0, 0.5), (2.0, 0.4), (2.5, 0.7), (2.6, 0.7)], [1, 3, 0]),
    ],
)
def test_the_front_holds_what_no_engine_beats_fastest_first(
    plane: list[tuple[float, float]], front: list[int]
) -> None:
    assert find_pareto_front([point("", *place) for place in plane]) == tuple(front)


places = st.tuples(st.integers(1, 6), st.integers(0, 6))


@given(st.lists(places, min_size=1, max_size=12))
def test_every_engine_is_on_the_front_or_beaten_by_one_on_it(plane: list[tuple[int, int]]) -> None:
    points = [point("", latency, score / 10) for latency, score in plane]
    front = find_pareto_front(points)
    assert front
    for index, (latency, score) in enumerate(plane):
        beaten = any(
            plane[i] != (latency, score) and plane[i][0] <= latency and plane[i][1] >= score
            for i in front
        )
        assert beaten != (index in front)


def test_labels_keep_clear_of_each_other_of_markers_and_of_whiskers() -> None:
    anchors = [Box(x, 100, x + 10, 110) for x in (100, 112, 124, 300)]
    whiskers = [Box(x + 4, 60, x + 6, 150) for x in (100, 112, 124, 300)]
    bounds = Box(0, 0, 500, 300)
    boxes = place_labels(anchors, [(60, 20)] * 4, whiskers, bounds)
    for box, other in itertools.combinations([*boxes, *anchors], 2):
        assert (other in anchors and box in anchors) or box.shared_area(other) == 0
    assert all(box.shared_area(whisker) == 0 for box in boxes for whisker in whiskers)
    assert all(math.isclose(box.shared_area(bounds), box.area) for box in boxes)


def test_a_label_without_a_free_place_is_placed_all_the_same() -> None:
    everywhere = Box(0, 0, 100, 100)
    (box,) = place_labels([Box(45, 45, 55, 55)], [(40, 10)], [everywhere], everywhere)
    assert math.isclose(box.area, 400)


def test_the_labels_of_engines_at_one_place_are_not_drawn_over_each_other() -> None:
    anchors = [Box(100, 100, 110, 110)] * 5
    boxes = place_labels(anchors, [(60, 20)] * 5, [], Box(0, 0, 400, 300))
    assert all(a.shared_area(b) == 0 for a, b in itertools.combinations(boxes, 2))


def test_a_label_is_joined_to_its_marker_where_another_is_nearer() -> None:
    anchors = [Box(100, 100, 110, 110), Box(118, 100, 128, 110)]
    left = Box(50, 95, 96, 115)
    assert not needs_leader(left, anchors, 0)
    assert needs_leader(left, anchors, 1)
    assert needs_leader(Box(20, 95, 66, 115), anchors[:1], 0)
    assert not needs_leader(left, anchors[:1], 0)
