"""Constraints are met by measured values; the front has what no other engine dominates."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lesiontk.errors import DataError, UsageError
from lesiontk.search.criteria import Criteria, Figures, find_front, parse_constraints
from lesiontk.search.result import find_best, list_front, list_measured
from tests.report.sample_search import CRITERIA, make_result

LABELS, POSITIVE = ("mel", "nv"), ("mel",)
FIGURES = Figures(
    "engine-1", "model-1", "validation-1",
    {"p90_ms": 5.0, "size_mb": 2.0, "recall[mel]": 0.87, "log_loss": 0.53},
    {"recall[mel]": 0.9, "log_loss": 0.5}, 20, 10, 100,
)  # fmt: skip


def parse(*constraints: str, objectives: tuple[str, ...] = ("recall[mel]",)) -> Criteria:
    return Criteria.parse(objectives, constraints, "pair", LABELS, POSITIVE)


@pytest.mark.parametrize(
    ("constraint", "met"),
    [
        ("p90_ms <= 5", True),
        ("p90_ms <= 4.99", False),
        ("recall[mel] >= 0.87", True),
        ("recall[mel] >= 0.88", False),
        ("recall[mel] >= parent - 0.03", True),
        ("recall[mel] >= parent - 0.029", False),
        ("log_loss <= parent + 0.03", True),
        ("log_loss <= parent + 0.02", False),
    ],
)
def test_a_constraint_is_met_at_its_limit(constraint: str, met: bool) -> None:
    assert (parse(constraint).list_violations(FIGURES) == ()) is met


def test_a_violation_has_the_limit_for_this_engine() -> None:
    (found,) = parse("recall[mel] >= parent - 0.01").list_violations(FIGURES)
    assert (found.measured, found.limit) == (0.87, pytest.approx(0.89))


@pytest.mark.parametrize(
    ("constraint", "message"),
    [
        ("p90_ms <= 0", "cannot be met"),
        ("recal[mel] >= 0.5", "Did you mean 'recall'"),
        ("recall[mell] >= 0.5", r"Did you mean 'recall\[mel\]'"),
        ("recall[mel] >= 1.2", "ranges from 0 to 1"),
        ("recall[mel] >= parent - 0.03 @ 0.95", "without `@`"),
        ("p90_ms >= 5", "lower is better"),
        ("p90_ms <= 5 ms", "expected `@`|end of the gate"),
    ],
)
def test_a_constraint_that_no_engine_can_meet_is_refused(constraint: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse(constraint)


def test_two_constraints_on_one_metric_are_refused() -> None:
    with pytest.raises(UsageError, match="two constraints limit p90_ms"):
        parse("p90_ms <= 5", "p90_ms <= 4")


@pytest.mark.parametrize(
    ("objectives", "message"),
    [
        (("balanced_acuracy",), "Did you mean 'balanced_accuracy'"),
        (("accuracy", "accuracy"), "listed twice"),
        (("sensitivity_at_parent_specificity[mel]",), "unknown objective"),
    ],
)
def test_an_unknown_objective_is_refused(objectives: tuple[str, ...], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse(objectives=objectives)


def test_a_metric_without_images_is_an_error_not_a_miss() -> None:
    with pytest.raises(DataError, match=r"f1\[mel\] is undefined on the 20 validation images"):
        parse("f1[mel] >= 0.1").list_violations(FIGURES)
    alone = replace(FIGURES, parent={})
    with pytest.raises(DataError, match="compares with a parent, but engine-1 has none"):
        parse("recall[mel] >= parent - 0.1").list_violations(alone)


def test_a_latency_that_was_not_measured_says_why() -> None:
    with pytest.raises(DataError, match=r"median_ms of engine-1 is not known: .* 100 timings"):
        parse("median_ms <= 5").list_violations(FIGURES)


points = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=12)


@given(points)
def test_every_point_is_on_the_front_or_dominated_by_one_that_is(
    found: list[tuple[int, int]],
) -> None:
    front = find_front(found, (True, False))
    for index, point in enumerate(found):
        better = [found[f] for f in front if found[f][0] <= point[0] and found[f][1] >= point[1]]
        assert better
        assert (index in front) <= (better == [point])
    assert len({found[index] for index in front}) == len(front)


def test_the_front_has_feasible_engines_once_each() -> None:
    result = make_result()
    front = list_front(result.trials, CRITERIA)
    assert front
    assert all(result.trial(number).state == "complete" for number in front)
    scores = [result.figures(number).value("balanced_accuracy") for number in front]
    assert scores == sorted(scores, reverse=True)
    assert result.candidates == len(list_measured(result.trials)) < len(result.trials)


def test_the_best_engine_under_a_constraint() -> None:
    result = make_result()
    best = find_best(result)
    assert best.number == result.front[0]
    faster = find_best(result, ["p90_ms <= 3"])
    assert faster.figures is not None
    assert best.figures is not None
    assert faster.figures.value("p90_ms") <= 3 < best.figures.value("p90_ms")


def test_where_no_engine_is_good_enough_the_nearest_is_named() -> None:
    result = make_result()
    with pytest.raises(UsageError, match=r"`p90_ms <= 0.1`; the nearest has p90_ms = "):
        find_best(result, ["p90_ms <= 0.1"])
    with pytest.raises(UsageError, match="has measured no engine yet"):
        find_best(make_result(trials=0))


def test_constraints_of_a_call_are_checked_like_those_of_a_space() -> None:
    assert parse_constraints(["p90_ms <= 5"], "pair", LABELS, POSITIVE)
    with pytest.raises(UsageError, match="Did you mean"):
        find_best(make_result(), ["p99_ms <= 5"])
