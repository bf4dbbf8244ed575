"""Predictions of three folds on drawn lesions, and a cross-validation of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lesiontk.evaluate.cross_validation import (
    CrossValidation,
    Fold,
    FoldPredictions,
    PooledEngine,
    pool_engine,
)
from lesiontk.evaluate.operating_point import OperatingPoint
from lesiontk.recipe import EvaluateRule
from lesiontk.stage import EngineName

LABELS = ("bcc", "mel", "nv")
RULE = EvaluateRule(resamples=1000)
TRAINING = (70, 71, 69)
LESIONS = 40


def make_folds(noise: float = 0.0, seed: int = 5) -> list[FoldPredictions]:
    """Return three folds of 40 lesions, with one to three images each.

    With `noise` the outputs of the same images are changed a little.
    """
    generator = np.random.default_rng(seed)
    folds = []
    for number in range(3):
        classes = np.arange(LESIONS) % 3
        sizes = generator.integers(1, 4, size=LESIONS)
        truth = np.repeat(classes, sizes)
        names = np.repeat([f"lesion {number}.{lesion}" for lesion in range(LESIONS)], sizes)
        logits = generator.normal(size=(len(truth), 3)) + 1.2 * np.eye(3)[truth]
        if noise:
            logits += np.random.default_rng([seed, number]).normal(0, noise, logits.shape)
        outputs = np.exp(logits)
        outputs /= outputs.sum(axis=1, keepdims=True)
        folds.append(
            FoldPredictions(
                truth,
                outputs.astype(np.float32),
                [f"image {number}.{image}" for image in range(len(truth))],
                names.tolist(),
                OperatingPoint("given", 0.5 + 0.1 * number, ("bcc", "mel")),
            )
        )
    return folds


def pool(
    folds: Sequence[FoldPredictions],
    rule: EvaluateRule = RULE,
    parent: Sequence[FoldPredictions] | None = None,
    target: str = "tflite:int8",
) -> PooledEngine:
    """Return the pooled engine of these folds, against `parent`."""
    before = None if parent is None else (EngineName("tflite:float32"), parent)
    return pool_engine(EngineName(target), folds, LABELS, "mel", TRAINING, rule, before)


def make_result(recipe: str = "tiny", description: str = "Drawn.") -> CrossValidation:
    """Return the cross-validation of three engines."""
    folds, other = make_folds(), make_folds(noise=0.1)
    counts = {
        label: sum(int((fold.y_true == index).sum()) for fold in folds)
        for index, label in enumerate(LABELS)
    }
    return CrossValidation(
        recipe=recipe,
        description=description,
        task="three_class",
        labels=LABELS,
        critical="mel",
        positive=("bcc", "mel"),
        images=sum(counts.values()),
        lesions=3 * LESIONS,
        images_by_label=counts,
        folds=tuple(
            Fold(
                fold=number,
                split_hash=str(number) * 64,
                training_images=150,
                training_lesions=TRAINING[number - 1],
                validation_images=20,
                validation_lesions=10,
                images=len(fold.y_true),
                lesions=LESIONS,
                positives=int((fold.y_true < 2).sum()),
            )
            for number, fold in enumerate(folds, start=1)
        ),
        engines=(
            pool(folds, target="keras:float32"),
            pool(folds, parent=folds, target="tflite:float32"),
            pool(other, parent=folds),
        ),
        confidence=RULE.confidence,
        resamples=RULE.resamples,
        seed=RULE.seed,
        synthetic=True,
        lesion_ids_known=True,
    )
