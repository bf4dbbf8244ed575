"""No interval of a share has width 0, however small the test set, whatever the engine answers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lesiontk.evaluate.bootstrap import Estimate, evaluate_predictions
from lesiontk.evaluate.comparison import compare_predictions
from lesiontk.evaluate.exact_bounds import bound_unseen
from lesiontk.evaluate.operating_point import OperatingPoint, evaluate_operating_point

TWO = ("benign", "malignant")
SCORES = ("expected_calibration_error", "brier", "log_loss")
SETTINGS: dict[str, Any] = {"resamples": 60}


def answer(classes: list[int], labels: tuple[str, ...] = TWO, sure: float = 0.9) -> Any:
    """Probabilities float32 [N, C] with these arg-maxima."""
    rows = np.full((len(classes), len(labels)), (1 - sure) / (len(labels) - 1))
    rows[np.arange(len(classes)), classes] = sure
    return rows.astype(np.float32)


def width(estimate: Estimate) -> float:
    assert estimate.low is not None
    assert estimate.high is not None
    return estimate.high - estimate.low


TRUTH = [1] * 12 + [0] * 40
GROUPS = [f"lesion-{row:03d}" for row in range(52)]


def test_twelve_of_twelve_may_be_73_percent() -> None:
    metrics = evaluate_predictions(TRUTH, answer(TRUTH), TWO, GROUPS, **SETTINGS).metrics
    found = metrics["recall[malignant]"]
    assert (found.value, found.high) == (1.0, 1.0)
    assert found.low == pytest.approx(0.025 ** (1 / 12))


def test_none_of_twelve_may_be_26_percent_and_one_of_twelve_38() -> None:
    for hits, most in ((0, 0.2646), (1, 0.3848)):
        answers = answer([1] * hits + [0] * (12 - hits) + [0] * 40)
        metrics = evaluate_predictions(TRUTH, answers, TWO, GROUPS, **SETTINGS).metrics
        found = metrics["recall[malignant]"]
        assert found.value == pytest.approx(hits / 12)
        assert found.high == pytest.approx(most, abs=1e-4)


def test_pictures_of_one_lesion_do_not_narrow_the_interval() -> None:
    groups = [f"lesion-{row // 2}" for row in range(52)]
    metrics = evaluate_predictions(TRUTH, answer(TRUTH), TWO, groups, **SETTINGS).metrics
    assert metrics["recall[malignant]"].low == pytest.approx(0.025 ** (1 / 6))


def test_plentiful_outcomes_keep_their_bootstrap_interval() -> None:
    """The twin: where nothing is scarce, the exact limits have no part."""
    truth = [0, 1] * 60
    answers = answer([row % 2 if row % 10 < 6 else 1 - row % 2 for row in range(120)])
    groups = [f"lesion-{row:03d}" for row in range(120)]
    metrics = evaluate_predictions(truth, answers, TWO, groups, resamples=400).metrics
    weights = np.random.default_rng(0).integers(120, size=(400, 120))
    shares = (np.arange(120) % 10 < 6)[weights].mean(axis=1)
    assert metrics["accuracy"].low == pytest.approx(np.quantile(shares, 0.025))


@settings(max_examples=60)
@given(st.integers(2, 4), st.integers(2, 25), st.integers(0, 2**32 - 1), st.sampled_from("pcwr"))
def test_no_share_of_any_engine_has_an_interval_of_width_0(
    classes: int, images: int, seed: int, kind: str
) -> None:
    """Engines that are perfect, constant, wrong throughout, or random."""
    generator = np.random.default_rng(seed)
    labels = tuple("abcd"[:classes])
    truth = generator.integers(classes, size=images)
    answers = {
        "p": truth,
        "c": np.zeros(images, int),
        "w": (truth + 1) % classes,
        "r": generator.integers(classes, size=images),
    }[kind]
    groups = [f"lesion-{number}" for number in generator.integers(images, size=images)]
    if len(set(groups)) == 1:
        return
    probabilities = answer(answers.tolist(), labels)
    evaluation = evaluate_predictions(truth, probabilities, labels, groups, **SETTINGS)
    point = OperatingPoint("given", 0.5, labels[:1])
    at_point = evaluate_operating_point(point, truth, probabilities, labels, groups, **SETTINGS)
    comparison = compare_predictions(
        truth, probabilities, probabilities, labels, groups, points=(point, point), **SETTINGS
    )
    shares = {
        **{f"difference of {name}": e for name, e in comparison.differences.items()},
        **evaluation.metrics,
        **{name: getattr(at_point, name) for name in ("sensitivity", "specificity", "auc")},
    }
    for name, estimate in shares.items():
        if estimate.low is None or estimate.high is None or estimate.value is None:
            assert estimate.value is None or "auc" in name or name in SCORES
            continue
        assert estimate.low <= estimate.value <= estimate.high, name
        assert estimate.high - estimate.low > 1e-9, name


def test_engines_that_agree_on_every_image_may_still_differ() -> None:
    """12 melanomas without a loss: with 95 % confidence at most 22 % are lost."""
    answers = answer(TRUTH)
    same = compare_predictions(
        TRUTH, answers, answers, TWO, GROUPS, resamples=60, confidence=0.9
    ).differences
    assert same["recall[malignant]"].value == 0.0
    assert same["recall[malignant]"].low == pytest.approx(-bound_unseen(12, 0.95))
    assert same["recall[malignant]"].high == pytest.approx(bound_unseen(12, 0.95))
    assert width(same["accuracy"]) < width(same["balanced_accuracy"])


def test_one_lesion_that_changes_does_not_narrow_an_interval() -> None:
    before, after = answer(TRUTH), answer([0, *TRUTH[1:]])
    none = compare_predictions(TRUTH, before, before, TWO, GROUPS, **SETTINGS).differences
    one = compare_predictions(TRUTH, before, after, TWO, GROUPS, **SETTINGS).differences
    for name in ("accuracy", "balanced_accuracy", "recall[malignant]"):
        assert width(one[name]) > 0.9 * width(none[name])
    low = one["recall[malignant]"].low
    assert low is not None
    assert low < -0.3


def test_many_that_change_keep_the_paired_bootstrap() -> None:
    """The twin: 20 discordant of 40 benign lesions, of which the exact limits say nothing."""
    before, after = answer(TRUTH), answer([1] * 12 + [0, 1] * 20)
    weights = np.random.default_rng(0).integers(52, size=(400, 52))
    changed = np.array([False] * 12 + [False, True] * 20)
    differences = compare_predictions(TRUTH, before, after, TWO, GROUPS, resamples=400).differences
    expected = np.quantile(-changed[weights].mean(axis=1), 0.025)
    assert differences["accuracy"].low == pytest.approx(expected)


def test_a_score_that_no_resample_moves_has_no_interval() -> None:
    """A constant Brier score is no share; what it might be elsewhere these images cannot tell."""
    metrics = evaluate_predictions(TRUTH, answer(TRUTH), TWO, GROUPS, **SETTINGS).metrics
    assert metrics["brier"].value == pytest.approx(0.02)
    assert (metrics["brier"].low, metrics["brier"].high) == (None, None)


@pytest.mark.parametrize("positives", [1, 2, 5])
def test_the_auc_of_few_lesions_is_covered_as_often_as_its_interval_says(positives: int) -> None:
    """Binormal scores with an AUC of 0.85; a bootstrap alone covers it in 51, 70 and 83 of 100."""
    generator = np.random.default_rng(positives)
    truth = np.repeat([0, 1], [60, positives])
    groups = [f"lesion-{row}" for row in range(len(truth))]
    covered = 0
    for _ in range(100):
        score = 1 / (1 + np.exp(-generator.standard_normal(len(truth)) - 1.4657 * truth))
        answers = np.stack([1 - score, score], axis=1)
        metrics = evaluate_predictions(truth, answers, TWO, groups, **SETTINGS).metrics
        found = metrics["auc[malignant]"]
        assert width(found) == pytest.approx(width(metrics["macro_auc"]))
        assert found.low is not None
        assert found.high is not None
        covered += found.low <= 0.85 <= found.high
    assert covered >= 88


def test_a_mean_over_classes_is_no_surer_than_its_only_class() -> None:
    metrics = evaluate_predictions([1] * 12, answer([1] + [0] * 11), TWO, GROUPS[:12]).metrics
    assert width(metrics["macro_f1"]) == pytest.approx(width(metrics["f1[malignant]"]))


def test_a_class_of_one_lesion_makes_the_mean_auc_unsure() -> None:
    labels = ("a", "b", "rare")
    truth = [0] * 30 + [1] * 30 + [2]
    generator = np.random.default_rng(0)
    answers = generator.dirichlet([1, 1, 1], 61) + 3 * np.eye(3)[truth]
    answers /= answers.sum(axis=1, keepdims=True)
    answers[-1] = (0.5, 0.4, 0.1)
    groups = [f"lesion-{row}" for row in range(61)]
    metrics = evaluate_predictions(truth, answers, labels, groups, **SETTINGS).metrics
    assert width(metrics["auc[rare]"]) > 0.5
    assert width(metrics["macro_auc"]) > 0.5 / 3  # 0.14 of a bootstrap alone
