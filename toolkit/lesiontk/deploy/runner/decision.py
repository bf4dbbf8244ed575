"""The prediction and decision from an engine's probabilities. Needs NumPy.

The toolkit and the bundle's runner both use this file.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from lesiontk.deploy.runner.documents import Decision, PointDocument, Prediction

SUM_TOLERANCE = 1e-2
"""Tolerance of the sum of an image's probabilities: int8 ones have steps of 1/256."""


class Point(Protocol):
    """A threshold on the summed probability of the labels `positive`."""

    @property
    def threshold(self) -> float:
        """The score from which an image is positive."""

    @property
    def positive(self) -> Sequence[str]:
        """The labels whose probabilities are summed."""


def are_probabilities(outputs: Any) -> bool:
    """Return whether outputs [N, C] are finite, not negative, and sum to 1 for each image."""
    if not np.isfinite(outputs).all():
        return False
    distance = np.abs(outputs.sum(axis=1, dtype=np.float64) - 1)
    return bool((outputs >= 0).all() and (distance <= SUM_TOLERANCE).all())


def decide(
    values: Any, labels: Sequence[str], point: Point | None, temperature: float | None
) -> Decision:
    """Return the prediction of probabilities float [C] of `labels`, rounded to six digits.

    `label` is the most probable class. With a `temperature`, `confidence` is the largest of the
    probabilities scaled by it. With an operating `point`, `score` is the summed
    probability of its labels and `positive` whether it reaches the threshold.
    """
    prediction: Decision = {
        "label": labels[int(np.argmax(values))],
        "probabilities": {name: round(float(value), 6) for name, value in zip(labels, values)},
    }
    if temperature:
        prediction["confidence"] = round(float(scale(values, temperature).max()), 6)
    if point is not None:
        # In the labels' order and in float64, as where the threshold was chosen.
        chosen = [column for column, name in enumerate(labels) if name in point.positive]
        score = float(np.asarray(values, np.float64)[chosen].sum())
        prediction["score"] = round(score, 6)
        prediction["positive"] = score >= point.threshold
    return prediction


def scale(probabilities: Any, temperature: float) -> Any:
    """Return softmax(log p / T), probabilities whose largest value is better calibrated."""
    powers = np.maximum(np.asarray(probabilities, np.float64), np.finfo(np.float32).eps)
    powers **= 1 / temperature
    return powers / powers.sum()


def escape_controls(text: str) -> str:
    """Return a file's name or a message as one line that a terminal shows as it is."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def describe(prediction: Prediction, point: PointDocument | None) -> list[str]:
    """Return the prediction as lines of text: classes, confidence, decision at the threshold."""
    ranked = sorted(prediction["probabilities"].items(), key=lambda pair: -pair[1])
    probabilities = ", ".join("{} {:.3f}".format(*pair) for pair in ranked)
    name = escape_controls(prediction["image"])
    lines = ["{}: {} ({})".format(name, prediction["label"], probabilities)]
    if "input" in prediction:
        status = prediction["input"]["status"].replace("_", " ")
        lines.append("  input: " + ": ".join([status, *prediction["input"]["reasons"]]))
    if "confidence" in prediction:
        lines.append("  confidence {:.3f}".format(prediction["confidence"]))
    if point:
        lines.append(
            "  {} score {:.3f}, threshold {:.3f}: {}".format(
                " + ".join(point["positive"]),
                prediction["score"],
                point["threshold"],
                "positive" if prediction["positive"] else "negative",
            )
        )
    return lines
