"""A threshold is the best that validation has, is frozen there, and is judged on other images."""

from __future__ import annotations

import json
import math
from fractions import Fraction

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from lesiontk.errors import DataError, UsageError
from lesiontk.evaluate.comparison import compare_predictions
from lesiontk.evaluate.metrics import compute_metrics
from lesiontk.evaluate.operating_point import (
    OperatingEvaluation,
    OperatingPoint,
    OperatingPointScorer,
    choose_threshold,
    evaluate_operating_point,
    find_positive,
    freeze_operating_point,
    parse_rule,
    score_positive,
)

SEVEN = ("akiec", "bcc", "bkl", "df", "mel", "nv", "vasc")
MALIGNANT = ("akiec", "bcc", "mel")
BINARY = ("benign", "malignant")

BoolArray = npt.NDArray[np.bool_]
FloatArray = npt.NDArray[np.float64]


def choose(positive: list[float], negative: list[float], rule: str = "youden") -> float:
    truth = np.array([True] * len(positive) + [False] * len(negative))
    return choose_threshold(truth, np.array(positive + negative), rule)


def rates(truth: BoolArray, scores: FloatArray, threshold: float) -> tuple[Fraction, Fraction]:
    """Sensitivity and specificity as exact fractions."""
    called = scores >= threshold
    hits, kept = int((called & truth).sum()), int((~called & ~truth).sum())
    return Fraction(hits, int(truth.sum())), Fraction(kept, int((~truth).sum()))


def make_predictions(
    seed: int, images: int, labels: tuple[str, ...] = SEVEN
) -> tuple[npt.NDArray[np.int64], FloatArray]:
    generator = np.random.default_rng(seed)
    truth = np.arange(images) % len(labels)
    logits = generator.normal(size=(images, len(labels)))
    logits[np.arange(images), truth] += 1.5
    powers = np.exp(logits)
    return truth, powers / powers.sum(axis=1, keepdims=True)


# Few different scores, so that ties are the rule: as an int8 engine gives them.
@st.composite
def both_classes(draw: st.DrawFn) -> tuple[BoolArray, FloatArray]:
    size = draw(st.integers(2, 30))
    truth = draw(st.lists(st.booleans(), min_size=size, max_size=size))
    scores = draw(st.lists(st.integers(0, 8), min_size=size, max_size=size))
    truth[0], truth[1] = True, False
    return np.array(truth), np.array(scores) / 8


# ---------------------------------------------------------------------- youden


def test_youden_separates_what_can_be_separated() -> None:
    assert choose([0.7, 0.9], [0.1, 0.4]) == 0.7


def test_youden_worked_by_hand() -> None:
    """At 0.6: 2 of 3 found, no alarm, J = 2/3. At 0.2: all found, 2 of 4 alarms, J = 1/2."""
    assert choose([0.2, 0.6, 0.8], [0.05, 0.1, 0.3, 0.4]) == 0.6


def test_of_equal_thresholds_the_one_that_misses_less_is_chosen() -> None:
    """At 0.8 and at 0.4 J is 1/2."""
    assert choose([0.4, 0.8], [0.1, 0.5]) == 0.4


def test_of_images_that_cannot_be_told_apart_all_are_positive() -> None:
    assert choose([0.3, 0.3], [0.3]) == 0.3


def test_scores_that_rank_the_wrong_way_round_call_everything_positive() -> None:
    assert choose([0.1, 0.2], [0.8, 0.9]) == 0.1


@given(both_classes())
def test_no_threshold_has_a_larger_youden_index(images: tuple[BoolArray, FloatArray]) -> None:
    truth, scores = images
    chosen = choose_threshold(truth, scores, "youden")
    candidates = [*np.unique(scores), *np.linspace(-0.1, 1.1, 49), math.inf]
    best = max(sum(rates(truth, scores, t)) for t in candidates)
    assert sum(rates(truth, scores, chosen)) == best
    lower = [t for t in np.unique(scores) if t < chosen]
    assert all(sum(rates(truth, scores, t)) < best for t in lower)


# ----------------------------------------------------------------- sensitivity


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("sensitivity:1", 0.1),
        ("sensitivity:1.0", 0.1),
        ("sensitivity:0.91", 0.1),
        ("sensitivity:0.90", 0.2),
        ("sensitivity:0.7", 0.4),  # 0.7 * 10 is 7.000000000000001 in floating point
        ("sensitivity:0.01", 1.0),
    ],
)
def test_the_highest_threshold_that_is_sensitive_enough(rule: str, expected: float) -> None:
    positive = [n / 10 for n in range(1, 11)]
    assert choose(positive, [0.35, 0.0], rule) == expected


def test_ties_at_the_threshold_are_all_found() -> None:
    assert choose([0.2, 0.5, 0.5, 0.9], [0.1], "sensitivity:0.5") == 0.5


@given(both_classes(), st.integers(1, 100))
def test_the_sensitivity_is_reached_and_no_higher_threshold_reaches_it(
    images: tuple[BoolArray, FloatArray], percent: int
) -> None:
    truth, scores = images
    rule = "sensitivity:1" if percent == 100 else f"sensitivity:0.{percent:02d}"
    chosen = choose_threshold(truth, scores, rule)
    assert rates(truth, scores, chosen)[0] >= Fraction(percent, 100)
    higher = [t for t in [*np.unique(scores), math.inf] if t > chosen]
    assert all(rates(truth, scores, t)[0] < Fraction(percent, 100) for t in higher)


# ----------------------------------------------------------------- specificity


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("specificity:1", 1.5),
        ("specificity:0.91", 1.5),
        ("specificity:0.90", 1.0),
        ("specificity:0.7", 0.75),
        ("specificity:0.01", 0.2),
    ],
)
def test_the_lowest_threshold_that_is_specific_enough(rule: str, expected: float) -> None:
    negative = [n / 10 for n in range(1, 11)]
    assert choose([0.75, 1.5], negative, rule) == expected


def test_a_specificity_that_no_positive_allows_calls_nothing_positive() -> None:
    threshold = choose([0.1, 0.2], [0.8, 0.9], "specificity:1")
    assert 0.9 < threshold < 0.9 + 1e-9


@given(both_classes(), st.integers(1, 100))
def test_the_specificity_is_reached_and_no_lower_threshold_reaches_it(
    images: tuple[BoolArray, FloatArray], percent: int
) -> None:
    truth, scores = images
    rule = "specificity:1" if percent == 100 else f"specificity:0.{percent:02d}"
    chosen = choose_threshold(truth, scores, rule)
    assert rates(truth, scores, chosen)[1] >= Fraction(percent, 100)
    lower = [t for t in np.unique(scores) if t < chosen]
    assert all(rates(truth, scores, t)[1] < Fraction(percent, 100) for t in lower)


# ----------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    "rule",
    [
        "best",
        "sensitivity",
        "sensitivity:0.0",
        "sensitivity:1.1",
        "sensitivity:90",
        "youden:1",
        "",
        "specificity:0",
        "specificity",
    ],
)
def test_an_unknown_rule_is_refused(rule: str) -> None:
    with pytest.raises(UsageError, match="expected youden, sensitivity:S or specificity:S"):
        parse_rule(rule)


@pytest.mark.parametrize("rule", ["youden", "sensitivity:0.90", "specificity:0.90"])
@pytest.mark.parametrize("truth", [[True, True], [False, False], []])
def test_one_class_alone_chooses_nothing(truth: list[bool], rule: str) -> None:
    counts = f"{sum(truth)} positive and {len(truth) - sum(truth)} negative"
    with pytest.raises(DataError, match=f"cannot be chosen on {counts}"):
        choose_threshold(np.array(truth, dtype=bool), np.full(len(truth), 0.5), rule)


def test_scores_that_are_not_finite_are_refused() -> None:
    with pytest.raises(DataError, match="NaN or infinity"):
        choose([0.5, math.nan], [0.1])


@pytest.mark.parametrize("positive", [(), SEVEN, ("melanoma",), ("mel", "nevus")])
def test_positive_labels_are_some_of_the_labels(positive: tuple[str, ...]) -> None:
    truth, probabilities = make_predictions(0, 14)
    with pytest.raises(DataError, match="positive labels are"):
        score_positive(probabilities, SEVEN, positive)
    with pytest.raises(DataError, match="positive labels are"):
        find_positive(truth, SEVEN, positive)


@pytest.mark.parametrize("threshold", [-0.1, 1.1, math.nan, math.inf])
def test_a_threshold_that_is_no_probability_is_refused(threshold: float) -> None:
    with pytest.raises(UsageError, match="expected a number in"):
        OperatingPoint("given", threshold, MALIGNANT)


# ------------------------------------------------------------------ the score


def test_the_score_is_the_sum_over_the_malignant_diagnoses() -> None:
    truth, probabilities = make_predictions(1, 21)
    expected = probabilities[:, 0] + probabilities[:, 1] + probabilities[:, 4]
    np.testing.assert_allclose(score_positive(probabilities, SEVEN, MALIGNANT), expected)
    assert find_positive(truth, SEVEN, MALIGNANT).tolist() == [t in (0, 1, 4) for t in truth]


def test_of_two_labels_the_threshold_of_a_half_is_the_arg_max() -> None:
    truth, probabilities = make_predictions(2, 200, BINARY)
    point = OperatingPoint("default", 0.5, ("malignant",))
    at_half = OperatingPointScorer(point, truth, probabilities, BINARY).compute()
    by_arg_max = compute_metrics(truth, probabilities, BINARY)
    assert at_half["sensitivity"] == by_arg_max["recall[malignant]"]
    assert at_half["specificity"] == by_arg_max["specificity[malignant]"]
    assert at_half["auc"] == by_arg_max["auc[malignant]"]


# ------------------------------------------------------------- frozen, judged


def test_validation_is_described_by_what_the_threshold_gives_there() -> None:
    truth, probabilities = make_predictions(3, 70)
    point = freeze_operating_point(truth, probabilities, SEVEN, MALIGNANT, "sensitivity:0.90")
    scores = score_positive(probabilities, SEVEN, MALIGNANT)
    sensitivity, specificity = rates(
        find_positive(truth, SEVEN, MALIGNANT), scores, point.threshold
    )
    assert point.validation is not None
    assert (point.validation.n, point.validation.positives) == (70, 30)
    assert point.validation.sensitivity == pytest.approx(float(sensitivity))
    assert point.validation.specificity == pytest.approx(float(specificity))
    assert sensitivity >= Fraction(9, 10)


def test_what_is_judged_agrees_with_counting_and_scikit_learn() -> None:
    truth, probabilities = make_predictions(4, 140)
    point = OperatingPoint("given", 0.4, MALIGNANT)
    groups = [f"lesion-{i // 2}" for i in range(140)]
    judged = evaluate_operating_point(point, truth, probabilities, SEVEN, groups, resamples=60)
    positive, scores = find_positive(truth, SEVEN, MALIGNANT), probabilities[:, [0, 1, 4]].sum(1)
    sensitivity, specificity = rates(positive, scores, 0.4)
    assert judged.positives == positive.sum()
    assert judged.sensitivity.value == pytest.approx(float(sensitivity))
    assert judged.specificity.value == pytest.approx(float(specificity))
    assert judged.auc.value == pytest.approx(roc_auc_score(positive, scores))
    for estimate in (judged.sensitivity, judged.specificity, judged.auc):
        assert estimate.value is not None
        assert estimate.low is not None
        assert estimate.high is not None
        assert estimate.low < estimate.value < estimate.high


def test_pictures_of_one_lesion_widen_the_interval() -> None:
    truth, probabilities = (np.repeat(x, 4, axis=0) for x in make_predictions(5, 70))
    point = OperatingPoint("given", 0.4, MALIGNANT)
    widths = []
    for groups in ([str(i // 4) for i in range(280)], [str(i) for i in range(280)]):
        judged = evaluate_operating_point(point, truth, probabilities, SEVEN, groups, resamples=400)
        assert judged.sensitivity.low is not None
        assert judged.sensitivity.high is not None
        widths.append(judged.sensitivity.high - judged.sensitivity.low)
    assert widths[0] > 1.5 * widths[1]


def test_without_positives_only_the_specificity_is_known() -> None:
    truth, probabilities = make_predictions(6, 140)
    benign = ~find_positive(truth, SEVEN, MALIGNANT)
    groups = [str(i) for i in range(int(benign.sum()))]
    point = OperatingPoint("given", 0.4, MALIGNANT)
    judged = evaluate_operating_point(
        point, truth[benign], probabilities[benign], SEVEN, groups, resamples=50
    )
    assert judged.positives == 0
    assert judged.sensitivity.value is None
    assert judged.auc.value is None
    assert judged.specificity.value is not None


def test_the_document_gives_the_point_back() -> None:
    truth, probabilities = make_predictions(7, 70)
    point = freeze_operating_point(truth, probabilities, SEVEN, MALIGNANT, "youden")
    groups = [str(i) for i in range(70)]
    judged = evaluate_operating_point(point, truth, probabilities, SEVEN, groups, resamples=50)
    document = json.loads(json.dumps(judged.to_document()))
    assert OperatingEvaluation.from_document(document) == judged
    assert judged.point == point
    given_by_hand = OperatingPoint("given", 0.25, ("mel",))
    assert OperatingPoint.from_document(given_by_hand.to_document()) == given_by_hand


# ---------------------------------------------------------------- comparison


def test_engine_and_parent_are_compared_each_at_its_own_threshold() -> None:
    """A child whose scores are shifted, and its threshold with them, loses nothing."""
    truth, parent = make_predictions(8, 140, BINARY)
    scores = parent[:, 1] / 2  # same order, half the height
    child = np.stack([1 - scores, scores], axis=1)
    groups = [str(i) for i in range(140)]
    mine, own = (
        freeze_operating_point(truth, p, BINARY, ("malignant",), "youden") for p in (parent, child)
    )
    refrozen, kept = (
        compare_predictions(truth, parent, child, BINARY, groups, resamples=50, points=points)
        for points in ((mine, own), (mine, mine))
    )
    for name in ("sensitivity", "specificity"):
        assert refrozen.differences[name].value == 0.0
    loss = kept.differences["sensitivity"].value
    assert loss is not None
    assert loss < -0.2
    without = compare_predictions(truth, parent, child, BINARY, groups, resamples=50)
    assert "sensitivity" not in without.differences


# -------------------------------------------------- an engine and its parent


def freeze_pair(child_noise: float) -> tuple[OperatingPoint, OperatingPoint, OperatingPoint]:
    """Return the parent's point, the child's that keeps its sensitivity, and the child's own."""
    truth, parent = make_predictions(11, 400, BINARY)
    logits = np.log(parent) + child_noise * np.random.default_rng(5).normal(size=parent.shape)
    child = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    theirs = freeze_operating_point(truth, parent, BINARY, ("malignant",), "youden")
    kept = freeze_operating_point(truth, child, BINARY, ("malignant",), "youden", theirs)
    own = freeze_operating_point(truth, child, BINARY, ("malignant",), "youden")
    return theirs, kept, own


@pytest.mark.parametrize("noise", [0.0, 0.1, 0.5, 1.5])
def test_an_engine_finds_as_many_positives_on_validation_as_its_parent(noise: float) -> None:
    parent, kept, _ = freeze_pair(noise)
    assert parent.validation is not None
    assert kept.validation is not None
    assert kept.rule == "parent_sensitivity"
    assert kept.validation.sensitivity >= parent.validation.sensitivity


def test_equal_answers_give_the_equal_threshold() -> None:
    parent, kept, own = freeze_pair(0.0)
    assert own.threshold == pytest.approx(parent.threshold)
    assert kept.threshold >= own.threshold  # the highest of those that find as many
    assert kept.validation is not None
    assert parent.validation is not None
    assert kept.validation.sensitivity == parent.validation.sensitivity


def test_a_parent_of_other_validation_images_is_refused() -> None:
    truth, probabilities = make_predictions(12, 100, BINARY)
    parent = freeze_operating_point(truth, probabilities, BINARY, ("malignant",), "youden")
    with pytest.raises(DataError, match="expected the same 60 validation images"):
        freeze_operating_point(
            truth[:60], probabilities[:60], BINARY, ("malignant",), "youden", parent
        )
