"""Results on corrupted images, of drawn predictions."""

from __future__ import annotations

import numpy as np

from lesiontk.data.corruptions import CORRUPTIONS, SEVERITIES
from lesiontk.evaluate.operating_point import OperatingPoint
from lesiontk.evaluate.robustness import (
    CorruptedResult,
    PairedOutputs,
    Robustness,
    estimate_excess,
)

LABELS = ("akiec", "bcc", "bkl", "df", "mel", "nv", "vasc")
POSITIVE = ("akiec", "bcc", "mel")


def make_robustness(*, fragile: bool = False, n: int = 210) -> Robustness:
    """Return the results of an int8 engine; a `fragile` one loses more on corrupted images."""
    generator = np.random.default_rng(7)
    truth = np.arange(n) % len(LABELS)
    conditions = [("clean", 0), *((name, s) for name in CORRUPTIONS for s in SEVERITIES)]

    def predict(signal: float, noise: np.ndarray) -> np.ndarray:
        logits = signal * np.eye(len(LABELS))[truth] + noise
        odds = np.exp(2 * logits)
        return (odds / odds.sum(axis=1, keepdims=True)).astype(np.float32)

    parent, engine = [], []
    for number, (_, severity) in enumerate(conditions):
        noise = generator.normal(size=(n, len(LABELS)))
        signal = 3.0 - 0.5 * severity - 0.01 * number
        other = noise + 0.1 * generator.normal(size=noise.shape)
        parent.append(predict(signal, noise))
        engine.append(predict(signal - (0.6 * severity if fragile else 0), other))
    point = OperatingPoint("youden", 0.4, POSITIVE)
    groups = [str(row // 2) for row in range(n)]
    outputs = PairedOutputs(
        truth, np.stack(parent), np.stack(engine), LABELS, groups, (point, point)
    )
    clean, losses, overall = estimate_excess(outputs, resamples=200, confidence=0.95, seed=0)
    return Robustness(
        target="tflite:int8",
        parent="tflite:float32",
        reference=False,
        n=n,
        lesions=n // 2,
        available=1504,
        images={label: int((truth == i).sum()) for i, label in enumerate(LABELS)},
        split_hash="5" * 64,
        clean=clean,
        results=tuple(
            CorruptedResult(name, severity, CORRUPTIONS.get(name).describe(severity), loss)
            for (name, severity), loss in zip(conditions[1:], losses, strict=True)
        ),
        overall=overall,
        confidence=0.95,
        resamples=200,
        seed=0,
    )
