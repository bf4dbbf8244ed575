"""The choice of test images to explain."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Reason = Literal["critical_missed", "wrong", "unsure"]
REASONS: tuple[Reason, ...] = ("critical_missed", "wrong", "unsure")


@dataclass(frozen=True, slots=True)
class ChosenImage:
    """A row of the predictions, the reason for its choice, and the two classes to explain."""

    row: int
    reason: Reason
    predicted: int
    rival: int


def choose_images(
    truth: NDArray[np.int64], probabilities: NDArray[np.float32], critical: int, count: int
) -> tuple[ChosenImage, ...]:
    """Return up to `count` images, the clinically most relevant first.

    Missed images of the critical class come first, then other errors; in both the most confident
    error first, because no threshold would have caught it. The remaining places go to the correct
    images of the lowest confidence: they are closest to an error, and show heatmaps of correct
    predictions.

    The rival of the predicted class is the true class, or the runner-up of a correct image.
    `truth` is [N], `probabilities` [N, C]; of equal probabilities the earlier class is predicted,
    of equal confidence the earlier row comes first.
    """
    rows = np.arange(len(truth))
    predicted = probabilities.argmax(axis=1)
    confidence = probabilities[rows, predicted]
    others = probabilities.copy()
    others[rows, predicted] = -1
    wrong = predicted != truth
    rival = np.where(wrong, truth, others.argmax(axis=1))
    rank = np.where(wrong, np.where(truth == critical, 0, 1), 2)
    urgency = np.where(wrong, -confidence, confidence)
    order = np.lexsort((rows, urgency, rank))[:count]
    return tuple(
        ChosenImage(int(row), REASONS[rank[row]], int(predicted[row]), int(rival[row]))
        for row in order
    )
