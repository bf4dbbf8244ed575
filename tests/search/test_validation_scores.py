"""No image is judged at a threshold that was chosen on it."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from lesiontk.evaluate.metrics import compute_metrics
from lesiontk.search.validation_scores import ValidationImages, ValidationScorer, deal_folds

LABELS = ("mel", "nv")


def make_images(lesions: int = 60, seed: int = 0) -> tuple[ValidationImages, NDArray[np.float32]]:
    """Return images of two classes, two a lesion, and probabilities that are mere noise."""
    rng = np.random.default_rng(seed)
    truth = np.repeat(rng.permutation(np.arange(lesions) % 3 > 0).astype(np.int64), 2)
    groups = [f"l{number}" for number in np.repeat(np.arange(lesions), 2)]
    p = np.repeat(rng.uniform(size=lesions), 2)
    return ValidationImages(truth, groups, LABELS, ("mel",)), np.stack([p, 1 - p], 1).astype("f4")


def test_metrics_without_a_threshold_are_those_of_an_evaluation() -> None:
    images, noise = make_images()
    values = ValidationScorer(images, noise).values()
    expected = compute_metrics(images.y_true, noise, LABELS)
    del expected["specificity[mel]"]  # of the positive label: at the threshold, as in a gate
    assert {name: values[name] for name in expected if name in values} == {
        name: value[0] for name, value in expected.items() if not np.isnan(value[0])
    }


def test_folds_keep_lesions_together_and_share_the_positives() -> None:
    images, _ = make_images()
    positive = images.y_true == 0
    fold = deal_folds(images.groups, positive, 5, seed=0)
    for lesion in set(images.groups):
        assert len(set(fold[[group == lesion for group in images.groups]])) == 1
    assert len(set(np.bincount(fold[positive]))) == 1


def test_a_threshold_gains_nothing_on_noise() -> None:
    """Youden's index of noise is 0; chosen and measured on the same images it is above 0."""
    found, naive = [], []
    for seed in range(150):
        images, noise = make_images(seed=seed)
        values = ValidationScorer(images, noise).values()
        found.append(values["sensitivity[mel]"] + values["specificity[mel]"] - 1)
        scores, positive = noise[:, 0], images.y_true == 0
        naive.append(max((scores[positive] >= t).mean() - (scores[~positive] >= t).mean()
                         for t in scores))  # fmt: skip
    assert np.mean(naive) > 0.1
    assert abs(np.mean(found)) < 0.03


def test_a_child_that_lost_the_positives_does_not_keep_the_sensitivity() -> None:
    """With a threshold from the same images it would, by construction."""
    images, noise = make_images(lesions=300)
    good = np.where(images.y_true == 0, 0.8, 0.2) + np.random.default_rng(1).normal(0, 0.05, 600)
    parent = np.stack([good, 1 - good], 1).astype("f4")
    scorer = ValidationScorer(images, noise, parent)
    assert scorer.parent_values()["sensitivity[mel]"] > 0.95
    name = "sensitivity_at_parent_specificity[mel]"
    assert scorer.parent_values()[name] == scorer.parent_values()["sensitivity[mel]"]
    assert scorer.values()[name] < 0.2
    assert scorer.values()["specificity[mel]"] < 0.3, "the price of the parent's sensitivity"


def test_an_engine_equal_to_its_parent_has_its_figures() -> None:
    images, noise = make_images()
    scorer = ValidationScorer(images, noise, noise)
    parent = scorer.parent_values()
    assert scorer.values()["sensitivity[mel]"] == pytest.approx(parent["sensitivity[mel]"], abs=0.1)
    assert scorer.values()["auc[mel]"] == parent["auc[mel]"]


def test_weights_repeat_images() -> None:
    images, noise = make_images()
    scorer = ValidationScorer(images, noise)
    weights = np.stack([np.ones(120), np.repeat([2.0, 0.0], 60)])
    for name in ("balanced_accuracy", "recall[mel]", "sensitivity[mel]", "auc[malignant]"):
        both = scorer.compute(weights, name)[name]
        assert both[0] == scorer.values()[name]
        assert both[1] != both[0]


def test_one_positive_lesion_has_no_cross_fitted_threshold() -> None:
    images, noise = make_images()
    few = ValidationImages(np.array([0, *[1] * 119]), images.groups, LABELS, ("mel",))
    values = ValidationScorer(few, noise).values()
    assert "sensitivity[mel]" not in values
    assert "recall[mel]" in values
