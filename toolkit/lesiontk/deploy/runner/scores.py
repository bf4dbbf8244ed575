"""Accuracy, and sensitivity at the frozen threshold, with Wilson intervals.

Wilson, Probable inference, the law of succession, and statistical inference, JASA 22 (1927).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import sqrt
from typing import Any

import numpy as np

Z = 1.959964  # of a two-sided interval at 95 %


@dataclass(frozen=True)
class Share:
    """`hits` of `n` images, with the 95 % Wilson interval; None without images."""

    hits: int
    n: int
    value: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Scores:
    """The results of labelled images: by arg-max, and at the threshold if there is one.

    `sensitivities` maps each label to its share of images that were called so. Intervals take the
    images for independent: with several images of a lesion they are too narrow.
    """

    accuracy: Share
    balanced_accuracy: float
    sensitivities: dict[str, Share]
    confusion: list[list[int]]
    sensitivity: Share | None = None
    specificity: Share | None = None

    def to_document(self) -> dict[str, Any]:
        """Return the scores as a JSON document."""
        return asdict(self)


def share(hits: int, n: int) -> Share:
    """Return a share with its interval."""
    if n == 0:
        return Share(0, 0, None, None, None)
    p, z2 = hits / n, Z * Z
    centre = (p + z2 / (2 * n)) / (1 + z2 / n)
    half = Z / (1 + z2 / n) * sqrt(p * (1 - p) / n + z2 / (4 * n * n))
    return Share(hits, n, p, max(0.0, centre - half), min(1.0, centre + half))


def score(
    truth: Any, called: Any, positive: Any, labels: Sequence[str], positive_labels: Sequence[str]
) -> Scores:
    """Return the scores of N images.

    `truth` and `called` [N] are indices into `labels`, `positive` [N] whether each image reached
    the threshold, or None without one. The balanced accuracy is the mean of the sensitivities of
    the labels that occur.
    """
    truth, called = np.asarray(truth), np.asarray(called)
    confusion = np.zeros((len(labels), len(labels)), np.int64)
    np.add.at(confusion, (truth, called), 1)
    hits, counts = confusion.diagonal(), confusion.sum(axis=1)
    sensitivities = {
        name: share(int(hits[index]), int(counts[index])) for index, name in enumerate(labels)
    }
    known = [each.value for each in sensitivities.values() if each.value is not None]
    sensitivity = specificity = None
    if positive is not None:
        ill = np.isin(truth, [labels.index(name) for name in positive_labels])
        said = np.asarray(positive, bool)
        sensitivity = share(int((said & ill).sum()), int(ill.sum()))
        specificity = share(int((~said & ~ill).sum()), int((~ill).sum()))
    return Scores(
        share(int(hits.sum()), len(truth)),
        float(np.mean(known)),
        sensitivities,
        confusion.tolist(),
        sensitivity,
        specificity,
    )
