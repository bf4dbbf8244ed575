"""The model card that lies in a bundle: what the engine is, what it was judged to be worth."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lesiontk.evaluate.operating_point import OPERATING_METRICS
from lesiontk.records import EngineSpec
from lesiontk.report.result_table import format_estimate


def render_bundle_card(
    spec: EngineSpec, description: str, evaluation: Mapping[str, Any] | None
) -> str:
    """Return the card (after Mitchell et al., arXiv:1810.03993) in Markdown.

    `evaluation` is the document of the engine's own evaluation on its test split, if there is one.
    """
    steps = [spec.preprocessing.fit, "resize", *spec.preprocessing.enhance]
    sections = [
        f"# {spec.recipe}, {spec.backend} {spec.precision}\n\n{description}".rstrip(),
        f"**{spec.notice}** It must not be used to diagnose or to decide on treatment. Its "
        "probabilities are not the risk of a patient.",
        "## Input and output\n\nOne dermoscopic picture with the lesion in its centred square: "
        f"{', '.join(step.replace('_', ' ') for step in steps)} to uint8 RGB "
        f"{list(spec.input_shape)}; normalisation is inside the engine. Output: probabilities of "
        f"{', '.join(spec.labels)}.",
        f"## Data and licence\n\n{spec.licence or 'Not stated.'}\n\nThe weights are derived from "
        f"these images. Split by lesion, hash `{spec.split_hash}`.",
        "## Results\n\n" + _describe_results(evaluation),
    ]
    return "\n\n".join(sections) + "\n"


def _describe_results(evaluation: Mapping[str, Any] | None) -> str:
    if evaluation is None:
        return "This engine was not evaluated; `lesiontk evaluate` does it."
    point = evaluation["operating_point"]
    metrics = evaluation["metrics"]
    rows = [
        f"| {name.replace('_', ' ')} | {format_estimate(metrics[name])} |"
        for name in metrics
        if name.startswith("recall[") or name in ("accuracy", "balanced_accuracy", "macro_auc")
    ]
    positive = " + ".join(point["positive"])
    rows += [
        f"| {name} of {positive} | {format_estimate(point[name])} |" for name in OPERATING_METRICS
    ]
    return (
        f"Test split, n = {evaluation['n']} images; in brackets 95 % intervals from a bootstrap "
        f"over lesions. The threshold {point['threshold']:.4f} ({point['rule']}) was frozen on "
        "validation.\n\n| metric | value |\n| --- | --- |\n" + "\n".join(rows)
    )
