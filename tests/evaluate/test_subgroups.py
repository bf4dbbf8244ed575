"""Results by age, sex and site: each equals the evaluation of its images alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from lesiontk.evaluate import subgroups
from lesiontk.evaluate.bootstrap import estimate_metrics
from lesiontk.evaluate.operating_point import OperatingPoint, evaluate_operating_point
from lesiontk.evaluate.subgroups import (
    SMALLEST,
    SubgroupResult,
    compare_subgroups,
    describe_people,
    evaluate_subgroups,
    merge_rare,
    name_age,
)

LABELS = ("benign", "malignant")
POINT = OperatingPoint("youden", 0.4, ("malignant",))
STATISTICS: dict[str, Any] = {"resamples": 200, "confidence": 0.95, "seed": 3}
N = 300


@dataclass
class Someone:
    age: float | None = None
    sex: str | None = None
    site: str | None = None


@pytest.fixture(scope="module")
def scores() -> tuple[Any, Any, list[str]]:
    generator = np.random.default_rng(5)
    truth = generator.integers(2, size=N)
    score = np.clip(0.3 * truth + generator.uniform(0, 0.7, N), 0, 1).astype(np.float32)
    return truth, np.stack([1 - score, score], 1), [f"lesion_{n // 2}" for n in range(N)]


def divide(attributes: dict[str, list[str]], scores: Any) -> tuple[SubgroupResult, ...]:
    truth, probabilities, groups = scores
    return evaluate_subgroups(attributes, POINT, truth, probabilities, LABELS, groups, **STATISTICS)


def test_a_group_has_the_results_of_its_images_alone(scores: Any) -> None:
    truth, probabilities, groups = scores
    sex = ["female" if n % 3 else "male" for n in range(N)]
    found = divide({"sex": sex}, scores)
    assert [(group.value, group.n) for group in found] == [("female", 200), ("male", 100)]
    for group in found:
        rows = [row for row in range(N) if sex[row] == group.value]
        alone = evaluate_operating_point(
            POINT,
            truth[rows],
            probabilities[rows],
            LABELS,
            [groups[row] for row in rows],
            **STATISTICS,
        )
        assert group.positives == truth[rows].sum()
        assert group.lesions == len({groups[row] for row in rows})
        assert group.sensitivity == alone.sensitivity
        assert group.specificity == alone.specificity
        assert group.auc == alone.auc


def test_groups_are_in_order_with_the_rest_last(scores: Any) -> None:
    ages = [name_age(age) for age in [75.0, 12.0, None, 40.0, 59.0, 60.0] * (N // 6)]
    site = ["ear"] * (SMALLEST - 1) + ["unknown"] * 5 + ["back"] * (N - SMALLEST - 4)
    found = divide({"age": ages, "site": site, "sex": ["female"] * N}, scores)
    assert [(group.attribute, group.value, group.n) for group in found] == [
        ("age", "under 40", 50),
        ("age", "40 to 59", 100),
        ("age", "60 and over", 100),
        ("age", "unknown", 50),
        ("site", "back", N - SMALLEST - 4),
        ("site", "other", SMALLEST - 1),
        ("site", "unknown", 5),
    ]


def test_a_group_without_malignant_images_has_no_sensitivity(scores: Any) -> None:
    truth = scores[0]
    sex = ["female" if positive else "male" for positive in truth]
    women, men = sorted(divide({"sex": sex}, scores), key=lambda group: group.value)
    assert women.specificity.value is None
    assert men.sensitivity.value is men.auc.value is None
    assert women.sensitivity.value is not None
    assert men.specificity.value is not None


def test_people_are_described_in_the_words_of_the_source() -> None:
    described = describe_people([Someone(39.9, "female", "scalp"), Someone()])
    assert described == {
        "age": ["under 40", "unknown"],
        "sex": ["female", "unknown"],
        "site": ["scalp", "unknown"],
    }


def test_small_groups_of_another_attribute_are_not_merged(scores: Any) -> None:
    sex = ["female" if n < SMALLEST // 2 else "male" for n in range(N)]
    found = divide({"sex": sex}, scores)
    assert [(group.value, group.n) for group in found] == [
        ("male", N - SMALLEST // 2),
        ("female", SMALLEST // 2),
    ]


def test_rare_values_are_merged_but_not_the_unknown() -> None:
    values = ["back"] * SMALLEST + ["ear"] * (SMALLEST - 1) + ["unknown"]
    assert set(merge_rare(values)) == {"back", "other", "unknown"}


# ---------------------------------------------------------------- paired changes


def test_a_change_in_one_group_alone_is_found_there(scores: Any) -> None:
    """A child that misses positive women: their sensitivity falls, that of men does not."""
    truth, parent, groups = scores
    sex = np.array(["female" if n % 3 else "male" for n in range(N)])
    child = parent.copy()
    missed = np.flatnonzero((truth == 1) & (sex == "female") & (parent[:, 1] >= 0.4))[:20]
    child[missed] = [1.0, 0.0]
    women, men = compare_subgroups(
        {"sex": sex.tolist()}, (POINT, POINT), truth, parent, child, LABELS, groups, **STATISTICS
    )
    assert (women.value, men.value) == ("female", "male")
    lost = -20 / np.sum((truth == 1) & (sex == "female"))
    assert women.sensitivity.value == pytest.approx(lost)
    assert men.sensitivity.value == women.specificity.value == men.specificity.value == 0
    assert women.sensitivity_beyond.value == pytest.approx(lost)
    assert men.sensitivity_beyond.value == pytest.approx(-lost)
    assert women.sensitivity_beyond.high is not None
    assert women.sensitivity_beyond.high < 0
    # None was discordant among the men: the interval is the exact one, not of width 0.
    assert men.sensitivity.low is not None
    assert men.sensitivity.low < 0 < (men.sensitivity.high or 0)


def test_an_equal_loss_everywhere_is_beyond_none(scores: Any) -> None:
    truth, parent, groups = scores
    sex = ["female" if n % 2 else "male" for n in range(N)]
    generator = np.random.default_rng(1)
    child = parent.copy()
    found = np.flatnonzero((truth == 1) & (parent[:, 1] >= 0.4))
    child[generator.choice(found, len(found) // 3, replace=False)] = [1.0, 0.0]
    for change in compare_subgroups(
        {"sex": sex}, (POINT, POINT), truth, parent, child, LABELS, groups, **STATISTICS
    ):
        low, high = change.sensitivity_beyond.low, change.sensitivity_beyond.high
        assert low is not None
        assert high is not None
        assert low < 0 < high


def test_a_group_without_a_change_is_not_shown_to_differ(scores: Any) -> None:
    """Nobody changed among the few: a difference from the others is as uncertain as they are."""
    truth, parent, groups = scores
    sex = ["female" if n < 20 else "male" for n in range(N)]
    child = parent.copy()
    found = np.flatnonzero((truth == 1) & (parent[:, 1] >= 0.4))
    child[found[found >= 20][:8]] = [1.0, 0.0]
    men, women = compare_subgroups(
        {"sex": sex}, (POINT, POINT), truth, parent, child, LABELS, groups, **STATISTICS
    )
    assert (men.value, women.value, women.sensitivity.value) == ("male", "female", 0)
    assert women.sensitivity.low is not None
    assert women.sensitivity_beyond.low is not None
    assert women.sensitivity_beyond.value is not None
    assert women.sensitivity_beyond.value > 0
    width = women.sensitivity_beyond.value - women.sensitivity_beyond.low
    assert width >= -women.sensitivity.low
    assert women.sensitivity_beyond.low < 0


def test_each_engine_is_at_its_own_threshold(scores: Any) -> None:
    truth, parent, groups = scores
    sex = ["female" if n % 2 else "male" for n in range(N)]
    stricter = OperatingPoint("youden", 0.6, ("malignant",))
    for change in compare_subgroups(
        {"sex": sex}, (POINT, stricter), truth, parent, parent, LABELS, groups, **STATISTICS
    ):
        assert change.sensitivity.value is not None
        assert change.sensitivity.value < 0 < (change.specificity.value or 0)


def test_all_groups_are_compared_in_one_pass_with_the_numbers_of_each_alone(
    scores: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    truth, parent, groups = scores
    child = parent.copy()
    child[::7] = child[::7, ::-1]
    attributes = {
        "sex": ["female" if n % 2 else "male" for n in range(N)],
        "site": [("back", "trunk", "face")[n % 3] for n in range(N)],
    }
    passes = []

    def count(*arguments: Any, **settings: Any) -> Any:
        passes.append(1)
        return estimate_metrics(*arguments, **settings)

    monkeypatch.setattr(subgroups, "estimate_metrics", count)

    def compare(named: dict[str, list[str]]) -> list[Any]:
        points = (POINT, POINT)
        return [
            *compare_subgroups(named, points, truth, parent, child, LABELS, groups, **STATISTICS)
        ]

    together = compare(attributes)
    assert len(passes) == 1
    assert together == [c for name, of in attributes.items() for c in compare({name: of})]
    assert compare({"sex": ["female"] * N}) == []
