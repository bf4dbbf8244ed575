"""A comparison is paired, exact and complete, and notices a damaged child."""

from __future__ import annotations

import json
import math

import numpy as np
import numpy.typing as npt
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from lesiontk.errors import DataError, UsageError
from lesiontk.evaluate.bootstrap import evaluate_predictions, iterate_bootstrap_weights
from lesiontk.evaluate.comparison import (
    apply_mcnemar_test,
    compare_predictions,
    is_constant,
    measure_agreement,
)
from lesiontk.evaluate.metrics import SMALLEST_PROBABILITY, compute_metrics

LABELS = ("bcc", "mel", "nv")
FloatArray = npt.NDArray[np.float64]


def normalize(scores: FloatArray) -> FloatArray:
    rows: FloatArray = scores / scores.sum(axis=1, keepdims=True)
    return rows


def make_parent(seed: int = 0, images: int = 240) -> tuple[npt.NDArray[np.int64], FloatArray]:
    generator = np.random.default_rng(seed)
    y_true = generator.integers(3, size=images)
    scores = np.exp(generator.normal(size=(images, 3)))
    scores[np.arange(images), y_true] *= 4.0
    return y_true, normalize(scores)


def perturb(parent: FloatArray, size: float) -> FloatArray:
    noise = np.random.default_rng(99).normal(size=parent.shape)
    return normalize(parent * np.exp(size * noise))


GROUPS = [f"lesion-{i // 2}" for i in range(240)]


def test_a_child_equal_to_its_parent_differs_in_nothing() -> None:
    y_true, parent = make_parent()
    comparison = compare_predictions(y_true, parent, parent.copy(), LABELS, GROUPS, resamples=50)
    assert {estimate.value for estimate in comparison.differences.values()} == {0.0}
    assert comparison.changed == ()
    assert (comparison.mcnemar.b, comparison.mcnemar.c, comparison.mcnemar.p_value) == (0, 0, 1.0)
    agreement = comparison.agreement
    assert agreement.top1_agreement == 1.0
    assert agreement.mean_absolute_drift == agreement.max_absolute_drift == 0.0
    assert agreement.mean_kl_divergence == 0.0


def test_a_faithful_child_passes_and_a_damaged_one_is_noticed() -> None:
    y_true, parent = make_parent()
    faithful = compare_predictions(y_true, parent, perturb(parent, 0.01), LABELS, GROUPS)
    assert faithful.agreement.top1_agreement >= 0.98
    assert faithful.agreement.mean_absolute_drift < 0.005
    assert faithful.mcnemar.p_value > 0.05
    damaged = compare_predictions(y_true, parent, np.roll(parent, 1, axis=1), LABELS, GROUPS)
    assert damaged.agreement.top1_agreement < 0.5
    assert damaged.agreement.mean_absolute_drift > 0.1
    assert damaged.mcnemar.p_value < 1e-6
    for name in ("accuracy", "balanced_accuracy", "macro_auc", "recall[mel]"):
        high = damaged.differences[name].high
        assert high is not None
        assert high < 0.0


def test_differences_are_child_minus_parent_with_melanoma_first() -> None:
    y_true, parent = make_parent()
    child = perturb(parent, 0.6)
    comparison = compare_predictions(y_true, parent, child, LABELS, GROUPS, resamples=50)
    assert tuple(comparison.differences) == (
        *("accuracy", "balanced_accuracy", "macro_auc"),
        *("recall[mel]", "recall[bcc]", "recall[nv]"),
    )
    before = compute_metrics(y_true, parent, LABELS)
    after = compute_metrics(y_true, child, LABELS)
    for name, estimate in comparison.differences.items():
        assert estimate.value == pytest.approx(after[name][0] - before[name][0], abs=1e-15)
        assert estimate.value != 0.0


def test_the_interval_is_paired_by_lesion() -> None:
    y_true, parent = make_parent()
    child = perturb(parent, 0.3)
    settings_ = {"resamples": 400, "confidence": 0.9, "seed": 6}
    comparison = compare_predictions(y_true, parent, child, LABELS, GROUPS, **settings_)  # type: ignore[arg-type]
    weights = np.concatenate(list(iterate_bootstrap_weights(GROUPS, resamples=400, seed=6)))
    after = compute_metrics(y_true, child, LABELS, weights)["macro_auc"]
    before = compute_metrics(y_true, parent, LABELS, weights)["macro_auc"]
    estimate = comparison.differences["macro_auc"]
    assert estimate.low is not None
    assert estimate.high is not None
    assert estimate.low == pytest.approx(np.quantile(after - before, 0.05))
    assert estimate.high == pytest.approx(np.quantile(after - before, 0.95))
    alone = evaluate_predictions(y_true, child, LABELS, GROUPS, **settings_).metrics["macro_auc"]  # type: ignore[arg-type]
    assert alone.low is not None
    assert alone.high is not None
    assert estimate.high - estimate.low < 0.6 * (alone.high - alone.low)


def test_every_changed_image_is_listed() -> None:
    parent = np.array([[0.8, 0.1, 0.1], [0.1, 0.8, 0.1], [0.1, 0.1, 0.8], [0.6, 0.3, 0.1]])
    child = np.array([[0.8, 0.1, 0.1], [0.1, 0.1, 0.8], [0.1, 0.8, 0.1], [0.1, 0.3, 0.6]])
    comparison = compare_predictions(
        [0, 1, 1, 1], parent, child, LABELS, ["a", "b", "c", "d"], resamples=40
    )
    assert [image.to_document() for image in comparison.changed] == [
        {
            "index": index,
            "true_label": "mel",
            "from_label": old,
            "to_label": new,
            "right_before": before,
            "right_after": after,
        }
        for index, old, new, before, after in [
            (1, "mel", "nv", True, False),
            (2, "nv", "mel", False, True),
            (3, "bcc", "nv", False, False),
        ]
    ]
    assert (comparison.mcnemar.b, comparison.mcnemar.c) == (1, 1)
    assert comparison.agreement.top1_agreement == 0.25


@given(st.integers(0, 60), st.integers(0, 60))
@settings(max_examples=60)
def test_mcnemar_is_the_binomial_test(b: int, c: int) -> None:
    parent = np.array([True] * b + [False] * c + [True, False])
    child = np.array([False] * b + [True] * c + [True, False])
    result = apply_mcnemar_test(parent, child)
    assert (result.b, result.c) == (b, c)
    expected = scipy.stats.binomtest(b, b + c, 0.5).pvalue if b + c else 1.0
    assert result.p_value == pytest.approx(expected, rel=1e-9)


def test_mcnemar_of_known_counts_and_of_many() -> None:
    """6 against 0: 2 / 2^6. And 3,000 discordant images underflow no early power of 1/2."""
    assert apply_mcnemar_test(np.ones(6, bool), np.zeros(6, bool)).p_value == 2 / 64
    many = apply_mcnemar_test(np.arange(3000) < 1400, np.arange(3000) >= 1400)
    assert many.p_value == pytest.approx(scipy.stats.binomtest(1400, 3000).pvalue, rel=1e-9)
    with pytest.raises(DataError, match=r"shapes \[2\] and \[3\]; expected the same"):
        apply_mcnemar_test(np.ones(2, bool), np.ones(3, bool))


def test_agreement_worked_by_hand() -> None:
    parent = np.array([[0.5, 0.5], [0.9, 0.1]])
    child = np.array([[0.25, 0.75], [0.9, 0.1]])
    agreement = measure_agreement(parent, child)
    assert agreement.n == 2
    assert agreement.top1_agreement == 0.5
    assert agreement.mean_absolute_drift == pytest.approx(0.125)
    assert agreement.max_absolute_drift == pytest.approx(0.25)
    divergence = 0.5 * math.log(0.5 / 0.25) + 0.5 * math.log(0.5 / 0.75)
    assert agreement.mean_kl_divergence == pytest.approx(divergence / 2)
    reverse = measure_agreement(child, parent).mean_kl_divergence
    assert reverse == pytest.approx((0.25 * math.log(0.5) + 0.75 * math.log(1.5)) / 2)


@given(st.integers(0, 2**32), st.floats(0.0, 3.0))
@settings(max_examples=40)
def test_divergence_agrees_with_scipy_and_is_never_negative(seed: int, size: float) -> None:
    _, parent = make_parent(seed, images=10)
    child = perturb(parent, size)
    received = measure_agreement(parent, child).mean_kl_divergence
    expected = scipy.stats.entropy(parent, child, axis=1).mean()
    assert received == pytest.approx(expected, rel=1e-4, abs=1e-6)
    assert received >= 0.0


def test_rounded_zeros_and_rounded_sums_give_a_finite_divergence() -> None:
    certain = measure_agreement(np.array([[1.0, 0.0]]), np.array([[0.0, 1.0]]))
    assert certain.mean_kl_divergence == pytest.approx(-math.log(SMALLEST_PROBABILITY), rel=1e-5)
    coarse = measure_agreement(np.array([[0.5, 0.5]]), np.array([[0.504, 0.504]]))
    assert coarse.mean_kl_divergence == pytest.approx(0.0, abs=1e-12)


def test_a_constant_output_is_found_and_a_varying_one_is_not() -> None:
    constant = np.tile([0.2, 0.3, 0.5], (20, 1))
    assert is_constant(constant)
    assert is_constant(constant + 4e-7 * np.eye(20, 3))
    varying = constant.copy()
    varying[7] = [0.2, 0.30001, 0.49999]
    assert not is_constant(varying)
    assert is_constant(varying, tolerance=1e-3)
    assert is_constant(np.zeros((3, 2)))
    with pytest.raises(DataError, match=r"shape \[1, 3\]; expected \[N, C\] with N >= 2"):
        is_constant(constant[:1])
    with pytest.raises(DataError, match="NaN"):
        is_constant(np.full((2, 2), np.nan))


def test_a_comparison_is_plain_json_with_none_for_undefined() -> None:
    parent = np.array([[0.8, 0.1, 0.1], [0.2, 0.1, 0.7]], dtype=np.float32)
    comparison = compare_predictions(
        np.array([0, 2]), parent, parent[:, [0, 2, 1]], LABELS, ["a", "b"], resamples=40, seed=2
    )
    document = json.loads(json.dumps(comparison.to_document(), allow_nan=False))
    assert document["differences"]["recall[mel]"] == {"value": None, "low": None, "high": None}
    assert document["differences"]["accuracy"]["value"] == -0.5
    assert document["mcnemar"] == {"b": 1, "c": 0, "p_value": 1.0}
    assert document["changed"][0]["index"] == 1
    assert (document["n"], document["lesions"], document["labels"]) == (2, 2, list(LABELS))
    assert (document["confidence"], document["resamples"], document["seed"]) == (0.95, 40, 2)
    assert document["agreement"]["n"] == 2
    assert len(document) == 10


def test_a_single_lesion_has_differences_but_no_intervals() -> None:
    y_true, parent = make_parent(images=6)
    comparison = compare_predictions(
        y_true, parent, perturb(parent, 1.0), LABELS, ["a"] * 6, resamples=40
    )
    assert comparison.differences["accuracy"].value is not None
    assert all(x.low is None for x in comparison.differences.values())


def test_bad_inputs_are_named() -> None:
    y_true, parent = make_parent()
    with pytest.raises(DataError, match=r"child has shape \[239, 3\]; expected .* \[240, 3\]"):
        measure_agreement(parent, parent[1:])
    with pytest.raises(DataError, match=r"child\[0, 0\] is nan; expected a probability"):
        measure_agreement(parent, np.full_like(parent, np.nan))
    with pytest.raises(DataError, match=r"parent\[\d+\] sums to .* not logits"):
        measure_agreement(10 * parent, parent)
    with pytest.raises(DataError, match="groups has 1 entries; expected 240"):
        compare_predictions(y_true, parent, parent, LABELS, ["a"])
    with pytest.raises(UsageError, match="resamples is 10"):
        compare_predictions(y_true, parent, parent, LABELS, GROUPS, resamples=10)
