"""The results of the stage ``explain``, as records and as a document."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from lesiontk.explain.choice import Reason
from lesiontk.records import Artefact

DOCUMENT = "explanation.json"


@dataclass(frozen=True, slots=True)
class Heatmap:
    """The heatmap of one class; `empty` if it is zero everywhere."""

    label: str
    file: str
    empty: bool


@dataclass(frozen=True, slots=True)
class ExplainedImage:
    """An image, its heatmaps of the predicted class and of its rival, and its probabilities.

    The rival is the true class, or the runner-up of a correct image (`reason` is ``unsure``).
    `original` and the heatmaps' `file` are pictures of the artefact.
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
class Explanation:
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


def dump_explanation(explanation: Explanation) -> str:
    """Return the document as JSON."""
    return json.dumps(asdict(explanation), indent=1) + "\n"


def read_explanation(artefact: Artefact) -> Explanation:
    """Return the explanation of an artefact of the stage."""
    document = json.loads(artefact.file(DOCUMENT).read_text())
    images = tuple(
        ExplainedImage(
            **{
                **image,
                "predicted": Heatmap(**image["predicted"]),
                "rival": Heatmap(**image["rival"]),
            }
        )
        for image in document["images"]
    )
    return Explanation(**{**document, "grid": tuple(document["grid"]), "images": images})
