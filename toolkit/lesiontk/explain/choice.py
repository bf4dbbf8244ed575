"""Which images are worth explaining."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Reason = Literal["critical_missed", "wrong", "unsure"]
REASONS: tuple[Reason, ...] = ("critical_missed", "wrong", "unsure")


@dataclass(frozen=True, slots=True)
class ChosenImage:
    """A row of the predictions, why it was chosen, and the two classes to explain it by."""

    row: int
    reason: Reason
    predicted: int
    rival: int


def choose_images(
    truth: NDArray[np.int64], probabilities: NDArray[np.float32], critical: int, count: int
) -> tuple[ChosenImage, ...]:
    """Return up to `count` images, those first that a clinical reader should look at first.

    First the images of the critical class that were missed, then the others that are wrong; in both
    the most confident mistake first, for it is the one that no threshold would have caught. Places
    that are left go to the images that are right with the least confidence: they are nearest to
    being the next mistakes, and show what a heatmap looks like when the answer is right.

    The rival of the predicted class is the true one, or the runner-up of an image that is right.
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
