"""A gate fails when an engine loses more than its bound; with a confidence, when that is sure."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from lesiontk.evaluate.gate import GateResult, judge_engine
from lesiontk.recipe import EvaluateRule, GateRule

LABELS = ("mel", "nv")
STATISTICS = EvaluateRule(resamples=400)
MEL = "recall[mel]"


def answers(y_true: NDArray[np.int64], wrong: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Probabilities of two classes: sure, and right but where they are said to be wrong."""
    top1 = np.where(wrong, 1 - y_true, y_true)
    return np.where(np.arange(2) == top1[:, None], 0.9, 0.1).astype(np.float32)


def judge(
    images: int,
    lost: int,
    gate: dict[str, GateRule],
    *,
    mel: int | None = None,
    statistics: EvaluateRule = STATISTICS,
) -> tuple[GateResult, ...]:
    """A parent that is right on all; a child that is wrong on the first `lost` melanomas."""
    melanomas = images // 2 if mel is None else mel
    y_true = np.where(np.arange(images) < melanomas, 0, 1).astype(np.int64)
    parent = answers(y_true, np.zeros(images, bool))
    child = answers(y_true, np.arange(images) < lost)
    lesions = [f"lesion {n}" for n in range(images)]
    return judge_engine("tflite:int8", y_true, parent, child, LABELS, lesions, gate, statistics)


def judge_mel(images: int, lost: int, rule: GateRule) -> GateResult:
    (result,) = judge(images, lost, {MEL: rule})
    return result


# ------------------------------------------------------------------------------ the measured drop


@pytest.mark.parametrize(("max_drop", "passed"), [(0.1, True), (0.11, True), (0.09, False)])
def test_the_measured_drop_decides_on_either_side_of_the_bound(
    max_drop: float, passed: bool
) -> None:
    """Five of fifty melanomas lost is a recall of 0.9."""
    result = judge_mel(100, 5, GateRule(max_drop=max_drop + 1e-12))
    assert result.drop == pytest.approx(0.1)
    assert result.judged == result.drop
    assert result.passed is passed


def test_no_drop_passes_the_strictest_gate() -> None:
    assert judge_mel(100, 0, GateRule(max_drop=0)).passed
    assert not judge_mel(100, 1, GateRule(max_drop=0)).passed


def test_a_gain_passes() -> None:
    y_true = np.repeat([0, 1], 50)
    parent = answers(y_true, np.arange(100) < 5)
    child = answers(y_true, np.zeros(100, bool))
    lesions = [f"lesion {n}" for n in range(100)]
    gate = {MEL: GateRule(max_drop=0)}
    (result,) = judge_engine("e", y_true, parent, child, LABELS, lesions, gate, STATISTICS)
    assert result.drop == pytest.approx(-0.1)
    assert result.passed


# ------------------------------------------------------------------------------ with confidence


SURE = GateRule(max_drop=0.01, confidence=0.95)


def test_with_confidence_a_small_drop_on_few_images_does_not_fail() -> None:
    """One of twenty melanomas: a drop of 0.05, which a second test set might not show."""
    result = judge_mel(40, 1, SURE)
    assert result.drop == pytest.approx(0.05)
    assert result.judged < result.drop
    assert result.passed
    assert not judge_mel(40, 1, GateRule(max_drop=0.01)).passed


def test_with_confidence_a_large_drop_on_few_images_fails() -> None:
    result = judge_mel(40, 10, SURE)
    assert 0.01 < result.judged < result.drop == pytest.approx(0.5)
    assert not result.passed


def test_with_confidence_the_same_drop_on_many_images_fails() -> None:
    assert not judge_mel(2000, 50, SURE).passed
    assert judge_mel(2000, 5, SURE).passed


def test_the_judged_drop_is_the_lower_one_sided_bound() -> None:
    """Of 200 melanomas 40 are lost; resampled drops are binomial, and their 10 % point is judged.

    The two-sided bound at the same confidence, 1.645 deviations away, lies twice the tolerance off.
    """
    gate = {MEL: GateRule(max_drop=0.01, confidence=0.9)}
    (result,) = judge(400, 40, gate, statistics=EvaluateRule(resamples=4000))
    deviation = np.sqrt(0.2 * 0.8 / 200)
    assert result.judged == pytest.approx(0.2 - 1.2816 * deviation, abs=0.005)


def test_pictures_of_one_lesion_count_as_one() -> None:
    """Ten melanomas lost that are one lesion make nothing sure; ten lesions do."""
    y_true = np.repeat([0, 1], 20)
    parent = answers(y_true, np.zeros(40, bool))
    child = answers(y_true, np.arange(40) < 10)
    gate = {MEL: SURE}
    apart = [f"lesion {n}" for n in range(40)]
    together = ["one lesion"] * 10 + apart[10:]
    (many,) = judge_engine("e", y_true, parent, child, LABELS, apart, gate, STATISTICS)
    (one,) = judge_engine("e", y_true, parent, child, LABELS, together, gate, STATISTICS)
    assert not many.passed
    assert one.passed


# ------------------------------------------------------------------------------ results


def test_every_rule_has_its_result() -> None:
    gate = {"accuracy": GateRule(max_drop=0.5), MEL: GateRule(max_drop=0.01)}
    accuracy, mel = judge(100, 10, gate)
    assert (accuracy.metric, accuracy.drop, accuracy.passed) == (
        "accuracy",
        pytest.approx(0.1),
        True,
    )
    assert (mel.metric, mel.drop, mel.passed) == (MEL, pytest.approx(0.2), False)
    assert mel.engine == "tflite:int8"
    assert mel.to_json()["max_drop"] == 0.01


def test_a_class_without_images_is_not_judged() -> None:
    gate = {MEL: GateRule(max_drop=0.01), "recall[nv]": GateRule(max_drop=0.01)}
    results = judge(50, 0, gate, mel=0)
    assert [result.metric for result in results] == ["recall[nv]"]


def test_a_recipe_without_gate_has_no_result() -> None:
    assert judge(50, 25, {}) == ()
