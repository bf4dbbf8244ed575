"""The results of the stage ``explain``, as records that are a document."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from lesiontk.document import Record
from lesiontk.explain.choice import Reason

DOCUMENT = "explanation.json"


@dataclass(frozen=True, slots=True)
class Heatmap(Record):
    """The heatmap of one class; `empty` if it is zero everywhere."""

    label: str
    file: str
    empty: bool


@dataclass(frozen=True, slots=True)
class ExplainedImage(Record):
    """An image, its heatmaps of the predicted class and of its rival, and its probabilities.

    The rival is the true class, or the runner-up of a correct image (`reason` is ``unsure``).
    `original` and the heatmaps' `file` are images of the artefact.
    """

    image_id: str
    group: str
    reason: Reason
    true_label: str
    probabilities: Mapping[str, float]
    original: str
    predicted: Heatmap
    rival: Heatmap


@dataclass(frozen=True, slots=True)
class Explanation(Record):
    """Heatmaps of test images, the most relevant first.

    `layer` is the layer of the feature map, of `grid` (h, w) cells. `judged` images were
    predicted, `wrong` of them wrongly; `critical_judged` are of the class `critical` and
    `critical_missed` of them were missed.
    """

    layer: str
    grid: tuple[int, int]
    critical: str
    judged: int
    wrong: int
    critical_judged: int
    critical_missed: int
    images: tuple[ExplainedImage, ...]
