"""Metrics agree with scikit-learn and with cases worked by hand, weighted and not."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
import sklearn.metrics as reference
from hypothesis import given, settings
from hypothesis import strategies as st

from lesiontk.errors import DataError
from lesiontk.evaluate.metrics import (
    SMALLEST_PROBABILITY,
    MetricScorer,
    compute_metrics,
    metric_names,
    order_labels,
    order_metrics,
)

HAM = ("akiec", "bcc", "bkl", "df", "mel", "nv", "vasc")
BINARY = ("benign", "malignant")
FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


def make_predictions(
    seed: int, images: int, classes: int, *, steps: int | None = None
) -> tuple[IntArray, FloatArray]:
    """Truth with every class and probabilities better than chance; `steps` makes ties."""
    generator = np.random.default_rng(seed)
    y_true = np.concatenate(
        [np.arange(classes), generator.integers(classes, size=images - classes)]
    )
    if steps is None:
        scores = np.exp(generator.normal(size=(images, classes)))
        scores[np.arange(images), y_true] *= 3.0
        return y_true, scores / scores.sum(axis=1, keepdims=True)
    counts = generator.multinomial(steps, np.full(classes, 1 / classes), size=images)
    return y_true, (counts + 1) / (steps + classes)


def make_weights(seed: int, images: int) -> FloatArray:
    """Positive weights, for scikit-learn drops no class then."""
    return np.random.default_rng(seed).uniform(0.1, 4.0, size=images)


def compute_reference(
    y_true: IntArray, probabilities: FloatArray, labels: tuple[str, ...], weights: FloatArray
) -> dict[str, float]:
    """The same metrics by scikit-learn, for truth in which every class is present."""
    top1 = probabilities.argmax(axis=1)
    classes = range(len(labels))
    options = {"sample_weight": weights}
    precision, recall, f1, _ = reference.precision_recall_fscore_support(
        y_true, top1, labels=list(classes), zero_division=np.nan, **options
    )
    auc = [
        reference.roc_auc_score(y_true == c, probabilities[:, c], sample_weight=weights)
        for c in classes
    ]
    specificity = [
        reference.recall_score(y_true != c, top1 != c, sample_weight=weights) for c in classes
    ]
    values = {
        "accuracy": reference.accuracy_score(y_true, top1, **options),
        "balanced_accuracy": reference.balanced_accuracy_score(y_true, top1, **options),
        "macro_auc": auc[-1] if len(labels) == 2 else float(np.mean(auc)),
        "macro_f1": float(np.mean(f1)),
        "log_loss": reference.log_loss(y_true, probabilities, labels=list(classes), **options),
        "brier": np.average(
            np.square(probabilities - np.eye(len(labels))[y_true]).sum(axis=1), weights=weights
        ),
    }
    for c, label in enumerate(labels):
        values |= {
            f"recall[{label}]": recall[c],
            f"precision[{label}]": precision[c],
            f"f1[{label}]": f1[c],
            f"auc[{label}]": auc[c],
            f"specificity[{label}]": specificity[c],
        }
    return {name: float(value) for name, value in values.items()}


def first_values(values: dict[str, FloatArray]) -> dict[str, float]:
    return {name: float(array[0]) for name, array in values.items()}


@pytest.mark.parametrize("labels", [BINARY, ("a", "mel", "c"), HAM])
@pytest.mark.parametrize("weighted", [False, True])
def test_agrees_with_scikit_learn(labels: tuple[str, ...], weighted: bool) -> None:
    y_true, probabilities = make_predictions(1, 300, len(labels))
    weights = make_weights(2, 300) if weighted else np.ones(300)
    received = compute_metrics(y_true, probabilities, labels, weights[None] if weighted else None)
    for name, expected in compute_reference(y_true, probabilities, labels, weights).items():
        assert received[name] == pytest.approx(expected, abs=1e-12), name


def test_agrees_with_scikit_learn_on_ties() -> None:
    y_true, probabilities = make_predictions(3, 200, 3, steps=4)
    labels, weights = ("a", "b", "c"), make_weights(4, 200)
    received = first_values(compute_metrics(y_true, probabilities, labels, weights[None]))
    expected = compute_reference(y_true, probabilities, labels, weights)
    for name in ("macro_auc", "auc[a]", "auc[b]", "auc[c]", "recall[a]"):
        assert received[name] == pytest.approx(expected[name], abs=1e-12), name


def test_agreement_with_scikit_learn_notices_damage() -> None:
    """The twin of the tests above: one swapped pair of images is seen."""
    y_true, probabilities = make_predictions(1, 300, 7)
    expected = compute_reference(y_true, probabilities, HAM, np.ones(300))
    swapped = probabilities.copy()
    other = int(np.flatnonzero(y_true != y_true[0])[-1])
    swapped[[0, other]] = swapped[[other, 0]]
    received = first_values(compute_metrics(y_true, swapped, HAM))
    assert received["macro_auc"] != pytest.approx(expected["macro_auc"], abs=1e-12)
    assert received["log_loss"] != pytest.approx(expected["log_loss"], abs=1e-12)


def test_brier_is_twice_the_one_sided_form_for_two_labels() -> None:
    y_true, probabilities = make_predictions(5, 100, 2)
    received = first_values(compute_metrics(y_true, probabilities, BINARY))
    one_sided = reference.brier_score_loss(y_true, probabilities[:, 1])
    assert received["brier"] == pytest.approx(2 * one_sided)


def test_an_absent_class_is_undefined_and_left_out_of_the_means() -> None:
    y_true, probabilities = make_predictions(6, 120, 4)
    kept = y_true != 2
    y_true, probabilities = y_true[kept], probabilities[kept]
    top1 = probabilities.argmax(axis=1)
    assert (top1 == 2).any()
    received = first_values(compute_metrics(y_true, probabilities, ("a", "b", "c", "d")))
    assert math.isnan(received["recall[c]"])
    assert math.isnan(received["f1[c]"])
    assert math.isnan(received["auc[c]"])
    assert received["precision[c]"] == 0.0
    present = [0, 1, 3]
    recalls = reference.recall_score(y_true, top1, labels=present, average=None)
    assert received["balanced_accuracy"] == pytest.approx(recalls.mean())
    f1 = reference.f1_score(y_true, top1, labels=present, average="macro")
    assert received["macro_f1"] == pytest.approx(f1)
    auc = [reference.roc_auc_score(y_true == c, probabilities[:, c]) for c in present]
    assert received["macro_auc"] == pytest.approx(np.mean(auc))


def test_a_class_never_predicted_has_no_precision_but_f1_zero() -> None:
    received = first_values(compute_metrics([0, 1, 1], np.array([[0.9, 0.1]] * 3), BINARY))
    assert math.isnan(received["precision[malignant]"])
    assert received["f1[malignant]"] == 0.0
    assert received["recall[malignant]"] == 0.0
    assert received["auc[malignant]"] == 0.5


def test_one_class_alone_leaves_specificity_and_auc_undefined() -> None:
    received = first_values(compute_metrics([1, 1], np.array([[0.2, 0.8], [0.6, 0.4]]), BINARY))
    assert math.isnan(received["specificity[malignant]"])
    assert math.isnan(received["macro_auc"])
    assert received["recall[malignant]"] == received["balanced_accuracy"] == 0.5


def test_fractional_weights_do_not_make_an_undefined_specificity_a_number() -> None:
    y_true, probabilities = make_predictions(7, 60, 3)
    weights = np.where(y_true == 1, make_weights(8, 60) / 3.0, 0.0)
    received = first_values(compute_metrics(y_true, probabilities, ("a", "b", "c"), weights[None]))
    assert math.isnan(received["specificity[b]"])
    assert math.isnan(received["auc[b]"])
    assert received["balanced_accuracy"] == received["recall[b]"] == received["accuracy"]


def test_a_case_worked_by_hand() -> None:
    probabilities = np.array([[0.9, 0.1], [0.4, 0.6], [0.4, 0.6], [0.2, 0.8], [0.7, 0.3]])
    y_true = np.array([0, 0, 1, 1, 1])
    received = first_values(compute_metrics(y_true, probabilities, BINARY))
    assert received["accuracy"] == pytest.approx(3 / 5)
    assert received["specificity[malignant]"] == pytest.approx(1 / 2)
    assert received["recall[malignant]"] == pytest.approx(2 / 3)
    assert received["balanced_accuracy"] == pytest.approx(7 / 12)
    assert received["precision[malignant]"] == pytest.approx(2 / 3)
    assert received["precision[benign]"] == pytest.approx(1 / 2)
    # Pairs: 0.6 beats 0.1 and ties 0.6, 0.8 beats both, 0.3 beats 0.1: 4.5 of 6.
    assert received["macro_auc"] == received["auc[malignant]"] == pytest.approx(4.5 / 6)
    brier = 2 * (0.1**2 + 0.6**2 + 0.4**2 + 0.2**2 + 0.7**2) / 5
    assert received["brier"] == pytest.approx(brier)
    logs = [0.9, 0.4, 0.6, 0.8, 0.3]
    assert received["log_loss"] == pytest.approx(-sum(map(math.log, logs)) / 5)
    assert MetricScorer(y_true, probabilities, BINARY).count_confusion().tolist() == [
        [1, 1],
        [1, 2],
    ]


def test_calibration_error_worked_by_hand() -> None:
    """Bins (8/15, 9/15]: two at 0.55, one right; (13/15, 14/15]: one at 0.9, right."""
    probabilities = np.array([[0.55, 0.45], [0.45, 0.55], [0.9, 0.1]])
    y_true = np.array([0, 0, 0])
    scorer = MetricScorer(y_true, probabilities, BINARY)
    received = first_values(scorer.compute())
    assert received["expected_calibration_error"] == pytest.approx((2 * 0.05 + 0.1) / 3)
    doubled = first_values(scorer.compute([[1.0, 1.0, 2.0]]))
    assert doubled["expected_calibration_error"] == pytest.approx((2 * 0.05 + 2 * 0.1) / 4)
    bins = scorer.bin_reliability()
    filled = {i: x for i, x in enumerate(bins) if x.count}
    assert len(bins) == 15
    assert sorted(filled) == [8, 13]
    assert filled[8].to_document() == {
        "low": 8 / 15,
        "high": 9 / 15,
        "count": 2,
        "confidence": pytest.approx(0.55),
        "accuracy": 0.5,
    }
    assert bins[0].confidence is None
    assert bins[0].accuracy is None


def test_a_confidence_on_an_edge_falls_below_it() -> None:
    scorer = MetricScorer([0], np.array([[0.6, 0.4]]), BINARY)
    assert [x.count for x in scorer.bin_reliability()].index(1) == 8
    certain = MetricScorer([0], np.array([[1.0, 0.0]]), BINARY)
    assert certain.bin_reliability()[14].count == 1


def test_the_bins_of_the_diagram_sum_to_the_calibration_error() -> None:
    y_true, probabilities = make_predictions(9, 400, 7)
    scorer = MetricScorer(y_true, probabilities, HAM)
    gaps = [
        x.count * abs(x.accuracy - x.confidence)
        for x in scorer.bin_reliability()
        if x.accuracy is not None and x.confidence is not None
    ]
    error = scorer.compute()["expected_calibration_error"]
    assert error == pytest.approx(sum(gaps) / 400)
    overconfident = np.where(probabilities == probabilities.max(axis=1, keepdims=True), 1.0, 0.0)
    damaged = compute_metrics(y_true, overconfident, HAM)["expected_calibration_error"]
    assert damaged[0] > error[0] + 0.1


def test_a_certain_and_wrong_image_has_a_finite_log_loss() -> None:
    received = first_values(compute_metrics([1], np.array([[1.0, 0.0]]), BINARY))
    assert received["log_loss"] == pytest.approx(-math.log(SMALLEST_PROBABILITY))
    assert received["brier"] == 2.0


def test_for_two_labels_the_macro_auc_is_that_of_the_last() -> None:
    """Rounded rows, for with exact ones both labels have the same AUC."""
    received = first_values(compute_metrics([0, 1], np.array([[0.5, 0.5], [0.505, 0.5]]), BINARY))
    assert received["auc[benign]"] == 0.0
    assert received["macro_auc"] == received["auc[malignant]"] == 0.5


def test_equal_probabilities_go_to_the_earlier_label() -> None:
    assert MetricScorer([1], np.array([[0.5, 0.5]]), BINARY).count_confusion().tolist() == [
        [0, 0],
        [1, 0],
    ]


def test_melanoma_comes_first_and_the_order_is_fixed() -> None:
    assert order_labels(HAM) == ("mel", "akiec", "bcc", "bkl", "df", "nv", "vasc")
    assert metric_names(BINARY) == (
        *("accuracy", "balanced_accuracy", "macro_auc", "macro_f1"),
        *("recall[malignant]", "recall[benign]"),
        *("precision[malignant]", "precision[benign]"),
        *("f1[malignant]", "f1[benign]"),
        *("specificity[malignant]", "specificity[benign]"),
        *("auc[malignant]", "auc[benign]"),
        *("expected_calibration_error", "brier", "log_loss"),
    )
    y_true, probabilities = make_predictions(10, 50, 7)
    assert tuple(compute_metrics(y_true, probabilities, HAM)) == metric_names(HAM)


def test_the_critical_label_of_a_task_comes_first_in_each_kind_of_metric() -> None:
    labels = ("other", "melanoma", "mel")
    names = order_metrics(metric_names(labels), "melanoma")
    assert sorted(names) == sorted(metric_names(labels))
    assert [n for n in names if n.startswith("recall")] == [
        "recall[melanoma]", "recall[mel]", "recall[other]",
    ]  # fmt: skip
    assert names[:4] == metric_names(labels)[:4]
    assert order_metrics(metric_names(HAM), "mel") == metric_names(HAM)


def test_a_batch_of_weights_equals_its_rows() -> None:
    y_true, probabilities = make_predictions(11, 80, 4)
    labels = ("a", "b", "c", "d")
    weights = np.random.default_rng(12).integers(0, 4, size=(9, 80))
    together = compute_metrics(y_true, probabilities, labels, weights)
    for row in range(9):
        alone = compute_metrics(y_true, probabilities, labels, weights[row : row + 1])
        for name, values in together.items():
            assert values.shape == (9,)
            np.testing.assert_allclose(values[row], alone[name][0], rtol=1e-12, err_msg=name)


@st.composite
def predictions(draw: st.DrawFn) -> tuple[IntArray, FloatArray, tuple[str, ...], IntArray]:
    """Small cases rich in ties and absent classes, with whole-number weights."""
    classes = draw(st.integers(2, 4))
    images = draw(st.integers(1, 12))
    row = st.lists(st.integers(0, 4), min_size=classes, max_size=classes).filter(any)
    counts = np.array(draw(st.lists(row, min_size=images, max_size=images)), dtype=np.float64)
    label = st.integers(0, classes - 1)
    y_true = np.array(draw(st.lists(label, min_size=images, max_size=images)))
    weight = st.lists(st.integers(0, 3), min_size=images, max_size=images).filter(any)
    labels = ("nv", "mel", "bcc", "df")[:classes]
    return y_true, counts / counts.sum(axis=1, keepdims=True), labels, np.array(draw(weight))


@given(predictions(), st.randoms(use_true_random=False))
@settings(max_examples=60)
def test_the_order_of_the_images_does_not_matter(case, random) -> None:  # type: ignore[no-untyped-def]
    y_true, probabilities, labels, weights = case
    order = list(range(len(y_true)))
    random.shuffle(order)
    before = compute_metrics(y_true, probabilities, labels, weights[None])
    after = compute_metrics(y_true[order], probabilities[order], labels, weights[order][None])
    for name, value in before.items():
        np.testing.assert_allclose(after[name], value, rtol=1e-9, atol=1e-12, err_msg=name)


@given(predictions())
@settings(max_examples=60)
def test_a_whole_weight_equals_repeating_the_image(case) -> None:  # type: ignore[no-untyped-def]
    y_true, probabilities, labels, weights = case
    weighted = compute_metrics(y_true, probabilities, labels, weights[None])
    repeated = compute_metrics(
        np.repeat(y_true, weights), np.repeat(probabilities, weights, axis=0), labels
    )
    for name, value in weighted.items():
        np.testing.assert_allclose(repeated[name], value, rtol=1e-9, atol=1e-12, err_msg=name)


@given(predictions(), st.floats(0.01, 100.0))
@settings(max_examples=60)
def test_metrics_stay_in_range_and_ignore_the_scale_of_weights(case, scale) -> None:  # type: ignore[no-untyped-def]
    y_true, probabilities, labels, weights = case
    plain = compute_metrics(y_true, probabilities, labels, weights[None])
    scaled = compute_metrics(y_true, probabilities, labels, scale * weights[None])
    for name, value in plain.items():
        np.testing.assert_allclose(scaled[name], value, rtol=1e-9, atol=1e-12, err_msg=name)
        if name == "log_loss" or np.isnan(value[0]):
            continue
        assert 0.0 <= scaled[name][0] <= (2.0 if name == "brier" else 1.0) + 1e-12, name
        assert name in ("brier", "expected_calibration_error") or scaled[name][0] <= 1.0, name


GOOD = np.array([[0.75, 0.25], [0.5, 0.5]])


@pytest.mark.parametrize(
    ("y_true", "probabilities", "labels", "weights", "message"),
    [
        ([0, 1], GOOD[:, :1], BINARY, None, r"shape \[2, 1\]; expected \[N, 2 labels\]"),
        ([0, 1], GOOD[0], BINARY, None, r"shape \[2\]; expected"),
        ([], np.zeros((0, 2)), BINARY, None, r"shape \[0, 2\]; expected .* N >= 1"),
        ([0, 1], GOOD.astype(int), BINARY, None, "dtype int64; expected floating point"),
        ([0, 1], [[0.5, 0.5], [np.nan, 1.0]], BINARY, None, r"\[1, 0\] is nan; expected a prob"),
        ([0, 1], [[0.5, 0.5], [1.1, -0.1]], BINARY, None, r"\[1, 1\] is -0.1; expected a prob"),
        ([0, 1], [[0.5, 0.5], [0.5, 0.52]], BINARY, None, r"\[1\] sums to 1.02; expected 1"),
        ([0, 1, 1], GOOD, BINARY, None, r"y_true has shape \[3\] .* expected \[2\] integers"),
        ([0.0, 1.0], GOOD, BINARY, None, "dtype float64; expected"),
        ([0, 2], GOOD, BINARY, None, r"y_true\[1\] is 2; expected 0 to 1"),
        ([0, -1], GOOD, BINARY, None, r"y_true\[1\] is -1; expected 0 to 1"),
        ([0, 1], GOOD, ("mel", "mel"), None, "labels are .* expected two or more different"),
        ([0, 1], GOOD, BINARY, [1.0, 1.0], r"weights have shape \[2\]; expected \[B >= 1, 2\]"),
        ([0, 1], GOOD, BINARY, [[1.0, -1.0]], "negative or non-finite"),
        ([0, 1], GOOD, BINARY, [[1.0, np.inf]], "negative or non-finite"),
        ([0, 1], GOOD, BINARY, [[1.0, 1.0], [0.0, 0.0]], r"weights\[1\] are all 0"),
    ],
)
def test_bad_inputs_are_named(y_true, probabilities, labels, weights, message) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(DataError, match=message):
        compute_metrics(y_true, probabilities, labels, weights)


def test_the_rounding_of_a_coarse_engine_is_accepted() -> None:
    """The twin of the refusal above: a sum within 0.01 of 1 is an engine's rounding."""
    received = compute_metrics([0, 1], np.array([[0.5, 0.509], [0.3, 0.691]]), BINARY)
    assert received["accuracy"][0] == 0.5
