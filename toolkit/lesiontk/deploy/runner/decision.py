"""From an engine's probabilities to what it says of a picture. Needs NumPy.

The toolkit and the bundle's runner decide with this one file.
"""

from __future__ import annotations

from typing import Any

import numpy as np

SUM_TOLERANCE = 1e-2
"""How far from 1 the sum of an image's probabilities may be: int8 ones come in steps of 1/256."""


def are_probabilities(outputs: Any) -> bool:
    """Return whether outputs [N, C] are finite, not negative, and sum to 1 for each image."""
    if not np.isfinite(outputs).all():
        return False
    distance = np.abs(outputs.sum(axis=1, dtype=np.float64) - 1)
    return bool((outputs >= 0).all() and (distance <= SUM_TOLERANCE).all())


def decide(
    values: Any, labels: list[str], point: dict[str, Any] | None, temperature: float | None
) -> dict[str, Any]:
    """Return what probabilities float [C] of `labels` say, rounded to six digits.

    `label` is the most probable class. With a `temperature`, `confidence` is the largest of the
    probabilities scaled by it. With an operating point (`threshold`, `positive` labels), `score` is
    the summed probability of its labels and `positive` whether it reaches the threshold.
    """
    said: dict[str, Any] = {
        "label": labels[int(np.argmax(values))],
        "probabilities": {name: round(float(value), 6) for name, value in zip(labels, values)},
    }
    if temperature:
        said["confidence"] = round(float(scale(values, temperature).max()), 6)
    if point:
        # In the labels' order and in float64, as where the threshold was chosen.
        chosen = [column for column, name in enumerate(labels) if name in point["positive"]]
        score = float(np.asarray(values, np.float64)[chosen].sum())
        said["score"] = round(score, 6)
        said["positive"] = score >= point["threshold"]
    return said


def scale(probabilities: Any, temperature: float) -> Any:
    """Return softmax(log p / T), of which the largest is nearer to how often it is right."""
    powers = np.maximum(np.asarray(probabilities, np.float64), np.finfo(np.float32).eps)
    powers **= 1 / temperature
    return powers / powers.sum()


def describe(said: dict[str, Any], point: dict[str, Any] | None) -> list[str]:
    """Return the lines for people: classes, confidence, and the decision at the threshold."""
    ranked = sorted(said["probabilities"].items(), key=lambda pair: -pair[1])
    chances = ", ".join("{} {:.3f}".format(*pair) for pair in ranked)
    lines = ["{}: {} ({})".format(said["image"], said["label"], chances)]
    if "confidence" in said:
        lines.append("  confidence {:.3f}".format(said["confidence"]))
    if point:
        lines.append(
            "  {} score {:.3f}, threshold {:.3f}: {}".format(
                " + ".join(point["positive"]),
                said["score"],
                point["threshold"],
                "positive" if said["positive"] else "negative",
            )
        )
    return lines
