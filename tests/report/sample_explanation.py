"""An explanation with an image of every kind."""

from __future__ import annotations

from lesiontk.explain.choice import Reason
from lesiontk.explain.explanation import ExplainedImage, Explanation, Heatmap
from tests.report.sample_report import SEVEN

MISSED, WRONG, UNSURE = "ISIC_0000061", "ISIC_0000300", "ISIC_0000007"


def make_image(
    image_id: str, number: int, reason: Reason, true: str, predicted: str, rival: str
) -> ExplainedImage:
    """Return an image whose predicted class got 0.625, its rival 0.25; the rest is empty."""
    return ExplainedImage(
        image_id=image_id,
        group=f"lesion-{number}",
        reason=reason,
        true_label=true,
        probabilities={**dict.fromkeys(SEVEN, 0.025), predicted: 0.625, rival: 0.25},
        original=f"{number}_original.jpg",
        predicted=Heatmap(predicted, f"{number}_predicted.jpg", empty=False),
        rival=Heatmap(rival, f"{number}_rival.jpg", empty=reason == "wrong"),
    )


def make_explanation(critical: str = "mel") -> tuple[Explanation, dict[str, str]]:
    """Return the record, and its pictures as ``data:`` addresses in the order of the page."""
    images = (
        make_image(MISSED, 1, "critical_missed", "mel", "nv", "mel"),
        make_image(WRONG, 2, "wrong", "nv", "bkl", "nv"),
        make_image(UNSURE, 3, "unsure", "df", "df", "vasc"),
    )
    explanation = Explanation(
        layer="block6_relu",
        grid=(4, 3),
        critical=critical,
        judged=160,
        wrong=2,
        critical_judged=24,
        critical_missed=1,
        images=images,
    )
    files = [f for i in images for f in (i.original, i.predicted.file, i.rival.file)]
    return explanation, {file: f"data:image/jpeg;base64,{file[0]}AAA" for file in files}
