"""What a cross-validation says, against the same numbers computed another way."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from statistics import fmean, stdev
from typing import Any

import numpy as np
import pytest

from lesiontk.errors import DataError
from lesiontk.evaluate.bootstrap import iterate_bootstrap_weights
from lesiontk.evaluate.comparison import compare_predictions
from lesiontk.evaluate.cross_validation import (
    CrossValidation,
    FoldPredictions,
    PooledEngine,
    check_folds,
    estimate_procedure,
    pool_engine,
)
from lesiontk.evaluate.operating_point import OperatingPoint
from lesiontk.recipe import EvaluateRule
from lesiontk.stage import EngineName
from tests.evaluate.pooled import LABELS, RULE, TRAINING, make_folds, make_result, pool


def count_auc(scores: Sequence[float], positive: Sequence[bool]) -> float:
    """Return the AUC from all pairs, one by one."""
    first = [score for score, is_positive in zip(scores, positive, strict=True) if is_positive]
    second = [score for score, is_positive in zip(scores, positive, strict=True) if not is_positive]
    wins = [1.0 if a > b else 0.5 if a == b else 0.0 for a, b in product(first, second)]
    return fmean(wins)


def test_decisions_are_counted_over_all_folds() -> None:
    folds = make_folds()
    metrics = pool(folds).metrics
    images = [
        (int(truth), int(outputs.argmax()), outputs[0] + outputs[1] >= fold.point.threshold)
        for fold in folds
        for truth, outputs in zip(fold.y_true, fold.probabilities, strict=True)
    ]
    recalls = [
        fmean(called == label for truth, called, _ in images if truth == label)
        for label in range(len(LABELS))
    ]
    expected = {
        "accuracy": fmean(truth == called for truth, called, _ in images),
        "balanced_accuracy": fmean(recalls),
        "recall[mel]": recalls[1],
        "sensitivity": fmean(above for truth, _, above in images if truth < 2),
        "specificity": fmean(not above for truth, _, above in images if truth == 2),
    }
    for name, value in expected.items():
        assert metrics[name].pooled.value == pytest.approx(value), name
    assert np.array(pool(folds).confusion).sum() == len(images)


def test_rankings_are_averaged_over_the_folds() -> None:
    folds = make_folds()
    metrics = pool(folds).metrics
    macro, malignant = [], []
    for fold in folds:
        scores = fold.probabilities.astype(np.float64)
        macro.append(
            fmean(count_auc(scores[:, c], list(fold.y_true == c)) for c in range(len(LABELS)))
        )
        malignant.append(count_auc(scores[:, 0] + scores[:, 1], list(fold.y_true < 2)))
    assert metrics["macro_auc"].folds == pytest.approx(macro)
    assert metrics["macro_auc"].pooled.value == pytest.approx(fmean(macro))
    assert metrics["auc"].pooled.value == pytest.approx(fmean(malignant))
    assert metrics["macro_auc"].deviation == pytest.approx(stdev(macro))


def sharpen(fold: FoldPredictions, power: float) -> FoldPredictions:
    """Return a fold whose scores of malignancy are on another scale, in the same order.

    The classes of a kind keep their proportion, so that nothing else changes within the fold.
    """
    scores = fold.probabilities.astype(np.float64)
    malignant = scores[:, :2].sum(axis=1)
    changed = malignant**power
    outputs = scores.copy()
    outputs[:, :2] *= (changed / malignant)[:, None]
    outputs[:, 2] = 1 - changed
    point = replace(fold.point, threshold=fold.point.threshold**power)
    return replace(fold, probabilities=outputs.astype(np.float32), point=point)


def test_the_scale_of_one_network_changes_no_ranking_and_no_decision_at_its_threshold() -> None:
    """An AUC over all folds at once would change: it is what the average avoids."""
    folds = make_folds()
    other = [sharpen(folds[0], 3.0), *folds[1:]]
    before, after = pool(folds).metrics, pool(other).metrics
    for name in ("auc", "sensitivity", "specificity"):
        assert after[name].pooled.value == pytest.approx(before[name].pooled.value), name

    def merge(parts: Sequence[FoldPredictions]) -> float:
        scores = np.concatenate([p.probabilities[:, :2].sum(axis=1) for p in parts]).tolist()
        return count_auc(scores, np.concatenate([p.y_true < 2 for p in parts]).tolist())

    assert abs(merge(other) - merge(folds)) > 0.01


def test_every_resample_has_the_lesions_of_each_fold() -> None:
    folds = make_folds()
    groups = [group for fold in folds for group in fold.groups]
    strata = np.repeat(range(len(folds)), [len(fold.groups) for fold in folds])
    first = {group: place for place, group in reversed(list(enumerate(groups)))}
    (weights,) = iterate_bootstrap_weights(groups, resamples=50, seed=3, strata=strata)
    for number, fold in enumerate(folds):
        places = [first[group] for group in sorted({*fold.groups})]
        assert (weights[:, places].sum(axis=1) == len(places)).all()
        assert (strata[places] == number).all()
    assert (weights == weights[:, [first[group] for group in groups]]).all()
    (shorter,) = iterate_bootstrap_weights(groups, resamples=20, seed=3, strata=strata)
    assert (weights[:20] == shorter).all()
    (free,) = iterate_bootstrap_weights(groups, resamples=50, seed=3)
    places = [first[group] for group in sorted({*folds[0].groups})]
    assert not (free[:, places].sum(axis=1) == len(places)).all()


def test_the_interval_is_that_of_lesions_drawn_within_folds() -> None:
    """Drawn again here, lesion by lesion, from a generator of our own."""
    folds = make_folds()
    generator = np.random.default_rng(11)
    accuracies = []
    for _ in range(2000):
        hits = total = 0
        for fold in folds:
            right = fold.probabilities.argmax(axis=1) == fold.y_true
            images: dict[str, list[bool]] = {}
            for group, hit in zip(fold.groups, right, strict=True):
                images.setdefault(group, []).append(bool(hit))
            lesions = list(images.values())
            for index in generator.integers(len(lesions), size=len(lesions)):
                hits, total = hits + sum(lesions[index]), total + len(lesions[index])
        accuracies.append(hits / total)
    low, high = np.quantile(accuracies, [0.025, 0.975])
    found = pool(folds, replace_rule(resamples=4000)).metrics["accuracy"].pooled
    assert found.low == pytest.approx(low, abs=0.01)
    assert found.high == pytest.approx(high, abs=0.01)


def replace_rule(**changes: Any) -> EvaluateRule:
    return RULE.model_copy(update=changes)


def test_the_procedure_has_the_corrected_variance() -> None:
    """Student's t of 2 degrees of freedom is 4.3027 at 97.5 %."""
    values = (0.70, 0.74, 0.78)
    found = estimate_procedure(values, 0.5, 0.95)
    reach = 4.302653 * math.sqrt((1 / 3 + 0.5) * 0.04**2)
    assert found.value == pytest.approx(0.74)
    assert (found.low, found.high) == (
        pytest.approx(0.74 - reach, abs=1e-6),
        pytest.approx(0.74 + reach, abs=1e-6),
    )
    uncorrected = 4.302653 * math.sqrt(0.04**2 / 3)
    assert reach > 1.5 * uncorrected
    cut = estimate_procedure(values, 0.5, 0.95, (0.7, 0.8))
    assert (cut.low, cut.high) == (0.7, 0.8)
    assert estimate_procedure([0.5, 0.5], 0.5, 0.95).low is None
    assert estimate_procedure([0.5], 0.5, 0.95).low is None
    assert estimate_procedure([], 0.5, 0.95).value is None


def test_the_procedure_counts_lesions() -> None:
    folds = make_folds()
    metric = pool(folds).metrics["accuracy"]
    ratio = fmean(len({*fold.groups}) for fold in folds) / fmean(TRAINING)
    expected = estimate_procedure([v or 0.0 for v in metric.folds], ratio, 0.95, (0.0, 1.0))
    assert metric.procedure == expected


def test_differences_are_paired() -> None:
    """Against the plain comparison of all images, which has the same values of decisions."""
    parents, children = make_folds(), make_folds(noise=0.1)
    versus = pool(children, parent=parents).versus_parent
    assert versus is not None
    merged = [np.concatenate([f.probabilities for f in part]) for part in (parents, children)]
    plain = compare_predictions(
        np.concatenate([fold.y_true for fold in parents]),
        *merged,
        LABELS,
        [group for fold in parents for group in fold.groups],
    )
    changes = versus.differences
    for name in ("accuracy", "balanced_accuracy", "recall[mel]"):
        found, expected = changes[name].pooled, plain.differences[name]
        assert found.value == pytest.approx(expected.value), name
        assert found.low == pytest.approx(expected.low, abs=0.02)
        assert found.high == pytest.approx(expected.high, abs=0.02)
    whole = pool(children).metrics["accuracy"].pooled
    paired = changes["accuracy"].pooled
    assert None not in (whole.low, whole.high, paired.low, paired.high)
    assert paired.high - paired.low < whole.high - whole.low  # type: ignore[operator]
    for name, change in changes.items():
        pairs = zip(
            pool(children).metrics[name].folds, pool(parents).metrics[name].folds, strict=True
        )
        expected = [new - old for new, old in pairs if new is not None and old is not None]
        assert change.folds == pytest.approx(expected), name


def test_an_equal_child_differs_by_nothing_and_is_not_certain_of_it() -> None:
    folds = make_folds()
    versus = pool(folds, parent=folds).versus_parent
    assert versus is not None
    accuracy = versus.differences["accuracy"]
    assert accuracy.pooled.value == 0.0
    assert accuracy.pooled.low is not None
    assert accuracy.pooled.low < 0 < accuracy.pooled.high  # type: ignore[operator]
    assert versus.differences["macro_auc"].pooled.low is None
    assert accuracy.procedure.low is None
    assert versus.agreement.top1_agreement == 1.0


def test_an_image_that_is_tested_twice_or_never_is_refused() -> None:
    folds = make_folds()
    images = sum(len(fold.image_ids) for fold in folds)
    check_folds(folds, images)
    with pytest.raises(DataError, match="expected each image once"):
        check_folds(folds, images + 1)
    with pytest.raises(DataError, match="of them several times"):
        check_folds([*folds, folds[0]], images)
    moved = replace(folds[1], groups=[folds[0].groups[0], *folds[1].groups[1:]])
    with pytest.raises(DataError, match="1 lesions are in the test parts of several folds"):
        check_folds([folds[0], moved, *folds[2:]], images)
    with pytest.raises(DataError, match="in several strata"):
        pool([folds[0], moved, *folds[2:]])


def test_a_class_that_a_fold_lacks_is_left_out_of_its_values() -> None:
    folds = make_folds()
    kept = [row for row, truth in enumerate(folds[0].y_true) if truth != 1]
    lacking = replace(
        folds[0],
        y_true=folds[0].y_true[kept],
        probabilities=folds[0].probabilities[kept],
        groups=[folds[0].groups[row] for row in kept],
        image_ids=[folds[0].image_ids[row] for row in kept],
    )
    metric = pool([lacking, *folds[1:]]).metrics["recall[mel]"]
    assert metric.folds[0] is None
    assert None not in metric.folds[1:]
    assert metric.procedure.value == pytest.approx(fmean(v for v in metric.folds if v is not None))


def test_the_document_gives_the_record_back() -> None:
    result = make_result()
    assert CrossValidation.from_document(result.to_document()) == result
    assert list(result.by_engine) == ["keras:float32", "tflite:float32", "tflite:int8"]


def test_a_threshold_of_each_fold_is_its_own() -> None:
    folds = make_folds()
    raised = replace(folds[0], point=OperatingPoint("given", 0.99, ("bcc", "mel")))
    before, after = pool(folds), pool([raised, *folds[1:]])
    assert after.thresholds[0] == 0.99
    assert after.metrics["sensitivity"].folds[0] != before.metrics["sensitivity"].folds[0]
    assert after.metrics["sensitivity"].folds[1:] == before.metrics["sensitivity"].folds[1:]
    assert after.metrics["accuracy"] == before.metrics["accuracy"]


def test_an_engine_of_the_network_before_compression_keeps_its_name() -> None:
    name = EngineName("tflite:float32", reference=True)
    engine: PooledEngine = pool_engine(name, make_folds(), LABELS, "mel", TRAINING, RULE)
    assert engine.key == "tflite:float32@trained"
    assert next(n for n in engine.metrics if n.startswith("recall")) == "recall[mel]"
