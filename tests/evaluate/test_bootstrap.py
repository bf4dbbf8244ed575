"""Intervals resample lesions, cover the truth about as often as they say, and are reproducible."""

from __future__ import annotations

import json
import math

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import confusion_matrix

from lesiontk.errors import DataError, UsageError
from lesiontk.evaluate import bootstrap
from lesiontk.evaluate.bootstrap import (
    Estimate,
    Evaluation,
    estimate_from_resamples,
    evaluate_predictions,
    iterate_bootstrap_weights,
)
from lesiontk.evaluate.metrics import compute_metrics, metric_names

LABELS = ("benign", "malignant")
FloatArray = npt.NDArray[np.float64]


def bootstrap_weights(groups: list[str], *, resamples: int, seed: int) -> FloatArray:
    return np.concatenate(
        list(iterate_bootstrap_weights(groups, resamples=resamples, seed=seed)), axis=0
    )


def simulate(
    seed: int, lesions: int, pictures: int
) -> tuple[npt.NDArray[np.int64], FloatArray, list[str]]:
    """Lesions whose `pictures` are all right (chance 0.8) or all wrong."""
    generator = np.random.default_rng(seed)
    y_true = np.repeat(generator.integers(2, size=lesions), pictures)
    right = np.repeat(generator.random(lesions) < 0.8, pictures)
    malignant = np.where(right == (y_true == 1), 0.9, 0.1)
    names = [f"lesion-{i}" for i in range(lesions) for _ in range(pictures)]
    return y_true, np.stack([1 - malignant, malignant], axis=1), names


def width(estimate: Estimate) -> float:
    assert estimate.low is not None
    assert estimate.high is not None
    return estimate.high - estimate.low


def test_a_lesion_is_drawn_whole_and_as_many_lesions_as_there_are() -> None:
    groups = ["b", "a", "b", "c", "a", "b"]
    weights = bootstrap_weights(groups, resamples=200, seed=3)
    assert weights.shape == (200, 6)
    np.testing.assert_array_equal(weights[:, 0], weights[:, 2])
    np.testing.assert_array_equal(weights[:, 0], weights[:, 5])
    np.testing.assert_array_equal(weights[:, 1], weights[:, 4])
    np.testing.assert_array_equal(weights[:, [0, 1, 3]].sum(axis=1), 3)
    assert weights.mean() == pytest.approx(1.0, abs=0.15)
    assert {0.0, 1.0, 2.0, 3.0} == set(weights.ravel().tolist())


def test_weights_repeat_with_the_seed_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    groups = [f"l{i // 2}" for i in range(20)]
    whole = bootstrap_weights(groups, resamples=50, seed=1)
    np.testing.assert_array_equal(bootstrap_weights(groups, resamples=7, seed=1), whole[:7])
    assert not np.array_equal(bootstrap_weights(groups, resamples=50, seed=2), whole)
    monkeypatch.setattr(bootstrap, "CHUNK_CELLS", 60)
    np.testing.assert_array_equal(bootstrap_weights(groups, resamples=50, seed=1), whole)


@given(st.lists(st.sampled_from("abcd"), min_size=1, max_size=12), st.integers(0, 2**32))
@settings(max_examples=40)
def test_weights_follow_the_images_when_they_are_reordered(groups: list[str], seed: int) -> None:
    forward = bootstrap_weights(groups, resamples=5, seed=seed)
    backward = bootstrap_weights(groups[::-1], resamples=5, seed=seed)
    np.testing.assert_array_equal(forward[:, ::-1], backward)


def test_repeated_pictures_widen_the_interval() -> None:
    y_true, probabilities, lesions = simulate(5, 100, 5)
    images = [f"image-{i}" for i in range(len(y_true))]
    by_lesion = evaluate_predictions(y_true, probabilities, LABELS, lesions, resamples=500)
    by_image = evaluate_predictions(y_true, probabilities, LABELS, images, resamples=500)
    ratio = width(by_lesion.metrics["accuracy"]) / width(by_image.metrics["accuracy"])
    assert ratio == pytest.approx(math.sqrt(5), rel=0.2)
    assert (by_lesion.lesions, by_image.lesions) == (100, 500)
    assert by_lesion.metrics["accuracy"].value == by_image.metrics["accuracy"].value


def count_coverage(*, grouped: bool) -> int:
    """Of 150 simulated studies, how many intervals contain the true accuracy 0.8."""
    covered = 0
    for seed in range(150):
        y_true, probabilities, lesions = simulate(seed, 60, 4)
        groups = lesions if grouped else [str(i) for i in range(len(y_true))]
        evaluation = evaluate_predictions(y_true, probabilities, LABELS, groups, resamples=200)
        estimate = evaluation.metrics["accuracy"]
        assert estimate.low is not None
        assert estimate.high is not None
        covered += estimate.low <= 0.8 <= estimate.high
    return covered


def test_intervals_by_lesion_cover_the_truth_and_intervals_by_image_do_not() -> None:
    """95 % of 150 is 142; a percentile interval of 60 lesions is known to fall a little short."""
    assert 132 <= count_coverage(grouped=True) <= 149
    assert count_coverage(grouped=False) < 115


def test_an_evaluation_carries_its_counts_and_reads_back_as_json() -> None:
    y_true, probabilities, lesions = simulate(7, 40, 2)
    evaluation = evaluate_predictions(
        y_true, probabilities, LABELS, lesions, resamples=100, confidence=0.9, seed=4
    )
    document = json.loads(json.dumps(evaluation.to_document(), allow_nan=False))
    assert set(document) == {
        *("n", "lesions", "labels", "metrics", "confusion"),
        *("confidence", "resamples", "seed", "reliability"),
    }
    assert (document["n"], document["lesions"], document["seed"]) == (80, 40, 4)
    assert (document["confidence"], document["resamples"]) == (0.9, 100)
    assert tuple(document["metrics"]) == metric_names(LABELS)
    assert document["confusion"] == confusion_matrix(y_true, probabilities.argmax(axis=1)).tolist()
    assert sum(x["count"] for x in document["reliability"]) == 80
    values = compute_metrics(y_true, probabilities, LABELS)
    for name, entry in document["metrics"].items():
        assert set(entry) == {"value", "low", "high"}
        assert entry["value"] == values[name][0]


def test_the_interval_is_the_percentiles_of_the_weighted_metrics(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    y_true, probabilities, lesions = simulate(8, 30, 3)
    weights = bootstrap_weights(lesions, resamples=100, seed=9)
    samples = compute_metrics(y_true, probabilities, LABELS, weights)
    monkeypatch.setattr(bootstrap, "CHUNK_CELLS", 1000)
    evaluation = evaluate_predictions(
        y_true, probabilities, LABELS, lesions, resamples=100, confidence=0.8, seed=9
    )
    for name in ("brier", "log_loss"):  # they are no shares
        low, high = np.quantile(samples[name], [0.1, 0.9])
        assert evaluation.metrics[name].low == pytest.approx(low)
        assert evaluation.metrics[name].high == pytest.approx(high)


def test_evaluation_does_not_depend_on_the_order_of_images() -> None:
    y_true, probabilities, lesions = simulate(10, 25, 2)
    order = np.random.default_rng(0).permutation(len(y_true))
    before = evaluate_predictions(y_true, probabilities, LABELS, lesions, resamples=60)
    after = evaluate_predictions(
        y_true[order], probabilities[order], LABELS, [lesions[i] for i in order], resamples=60
    )
    assert before.confusion == after.confusion
    for name, estimate in before.metrics.items():
        other = after.metrics[name]
        assert other.value == pytest.approx(estimate.value), name
        assert other.low == pytest.approx(estimate.low), name


def test_an_absent_class_is_none_not_zero() -> None:
    probabilities = np.array([[0.8, 0.1, 0.1], [0.2, 0.7, 0.1], [0.6, 0.3, 0.1]])
    evaluation = evaluate_predictions(
        [0, 1, 0], probabilities, ("nv", "bcc", "mel"), ["a", "b", "c"], resamples=50
    )
    empty = {"value": None, "low": None, "high": None}
    for name in ("recall[mel]", "precision[mel]", "f1[mel]", "auc[mel]"):
        assert evaluation.to_document()["metrics"][name] == empty
    assert evaluation.metrics["balanced_accuracy"].value == 1.0


def test_undefined_resamples_are_ignored_until_they_are_the_majority() -> None:
    samples = np.array([np.nan, 0.0, 0.5, 1.0])
    assert estimate_from_resamples(0.2, samples, 0.5) == Estimate(0.2, 0.25, 0.75)
    half = np.array([np.nan, np.nan, 0.2, 0.3])
    assert estimate_from_resamples(0.2, half, 0.5).low is not None
    most = np.array([np.nan, np.nan, np.nan, 0.3])
    assert estimate_from_resamples(0.2, most, 0.5) == Estimate(0.2, None, None)
    assert estimate_from_resamples(math.nan, samples, 0.5) == Estimate(None, None, None)


def test_the_interval_of_the_calibration_error_covers_its_value_and_reaches_below_it() -> None:
    """Resampling adds chance to an error that already has it; its percentiles lie too high."""
    generator = np.random.default_rng(3)
    sure = generator.uniform(0.5, 1.0, 400)
    right = generator.random(400) < sure
    probabilities = np.stack([sure, 1 - sure], axis=1)
    found = evaluate_predictions(
        1 - right, probabilities, ("a", "b"), [f"l{row}" for row in range(400)], resamples=200
    ).metrics["expected_calibration_error"]
    assert found.value is not None
    assert found.low is not None
    assert found.high is not None
    assert 0 <= found.low < found.value < found.high
    assert estimate_from_resamples(0.2, np.full(9, 0.5), 0.5, biased_upward=True) == Estimate(
        0.2, 0.0, 0.5
    )


def test_a_single_lesion_has_values_but_no_intervals() -> None:
    y_true, probabilities, lesions = simulate(1, 1, 4)
    evaluation = evaluate_predictions(y_true, probabilities, LABELS, lesions, resamples=50)
    assert evaluation.metrics["accuracy"].value is not None
    assert all(x.low is None and x.high is None for x in evaluation.metrics.values())


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        (["a"], "groups has 1 entries; expected 2, one for each image"),
        (["a", ""], r"groups\[1\] is ''; expected the name of a lesion"),
        (["a", None], r"groups\[1\] is None; expected the name of a lesion"),
    ],
)
def test_bad_groups_are_named(groups: list[str], message: str) -> None:
    with pytest.raises(DataError, match=message):
        evaluate_predictions([0, 1], np.full((2, 2), 0.5), LABELS, groups)


def test_bad_settings_are_named() -> None:
    y_true, probabilities, lesions = simulate(1, 5, 1)
    with pytest.raises(UsageError, match=r"resamples is 39; a 0.95 interval needs 40"):
        evaluate_predictions(y_true, probabilities, LABELS, lesions, resamples=39)
    evaluate_predictions(y_true, probabilities, LABELS, lesions, resamples=40)
    with pytest.raises(UsageError, match="confidence is 95; expected a number between"):
        evaluate_predictions(y_true, probabilities, LABELS, lesions, confidence=95)
    with pytest.raises(UsageError, match="resamples is 0"):
        bootstrap_weights(lesions, resamples=0, seed=0)
    with pytest.raises(UsageError, match="seed is -1"):
        bootstrap_weights(lesions, resamples=1, seed=-1)
    with pytest.raises(DataError, match="groups has 0 entries"):
        bootstrap_weights([], resamples=1, seed=0)


def test_a_record_that_contradicts_itself_cannot_be_made() -> None:
    for value, low, high in [(math.nan, None, None), (0.5, 0.4, None), (0.5, 0.6, 0.4)]:
        with pytest.raises(ValueError, match="is not an estimate"):
            Estimate(value, low, high)
    metrics = {name: Estimate(None, None, None) for name in metric_names(LABELS)}
    fields = {"lesions": 1, "labels": LABELS, "confidence": 0.95, "resamples": 40, "seed": 0}
    with pytest.raises(ValueError, match="is not 2 images"):
        Evaluation(n=2, metrics=metrics, confusion=((1, 0), (0, 0)), reliability=(), **fields)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="not those of"):
        Evaluation(n=1, metrics={}, confusion=((1, 0), (0, 0)), reliability=(), **fields)  # type: ignore[arg-type]
