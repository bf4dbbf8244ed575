"""What may change in a deployed engine, and which gates then decide: a predetermined plan."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from lesiontk.evaluate.operating_point import OperatingPoint
from lesiontk.evaluate.verdict import GateVerdict
from lesiontk.records import EngineSpec

CHANGE_PLAN: Final = "change_plan.md"


def render_change_plan(
    spec: EngineSpec, point: OperatingPoint | None, verdicts: Sequence[GateVerdict]
) -> str:
    """Return the plan in Markdown, made from the gates of the recipe.

    It has the parts of a predetermined change control plan (FDA, 2024): which changes, by which
    protocol they are tested, and what remains outside of it.
    """
    gates = "\n".join(f"- `{verdict.gate}`" for verdict in verdicts)
    decides = (
        f"The new engine is evaluated on the test split `{spec.split_hash[:12]}`, and passes all "
        f"of these gates:\n\n{gates}"
        if verdicts
        else "The recipe has no gates: no change is covered until it has some."
    )
    frozen = (
        "no threshold is frozen"
        if point is None
        else f"the threshold {point.threshold:.4f} on {' + '.join(point.positive)}, chosen by "
        f"`{point.rule}`"
    )
    return f"""# Change plan of {spec.recipe}, {spec.backend} {spec.precision}

{spec.notice} This plan is written from the recipe's gates. It is no approval by anyone.

## Frozen

- Classes: {", ".join(spec.labels)}.
- Input: uint8 RGB {list(spec.input_shape)}, {spec.preprocessing.crop_mode}, \
{", ".join(("bilinear", *spec.preprocessing.enhance))}.
- Decision: {frozen}.
- Split `{spec.split_hash}`, by lesion. Its test images choose nothing.

## Changes that the gates decide

| change | what is done again |
| --- | --- |
| calibrated or quantized again, another runtime version | convert, evaluate, gates, bundle |
| compressed again (pruning, distillation, quantization-aware training) | the same, and \
verification against the new parent |
| trained again on the same training images, another seed or schedule | all of it; threshold and \
temperature are frozen again on validation |
| further training images, none of a lesion or patient of the test split | all of it, with a new \
split hash and the same test images |

{decides}

The self-test of the new bundle passes on the device, and its signature is checked there.

## Changes that this plan does not cover

Other classes, another intended use, another kind of camera or preprocessing, a threshold chosen
otherwise, gates that are weakened or removed, test images that were used to choose anything. These
need a new evaluation by whoever is responsible for the device.

## When it is taken back

A self-test that fails, a gate that fails on further labelled images, or input checks that refuse
far more pictures than on validation: the previous bundle is used again. Keep it.
"""
