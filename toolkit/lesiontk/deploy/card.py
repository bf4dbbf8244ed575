"""The model card of a bundle: the engine's description and its evaluation."""

from __future__ import annotations

from collections.abc import Sequence

from lesiontk.evaluate.assessment import Assessment, TestResult
from lesiontk.evaluate.fit_input_checks import InputChecks
from lesiontk.evaluate.operating_point import GIVEN, OperatingPoint
from lesiontk.evaluate.verdict import GateVerdict, describe_outcomes
from lesiontk.records import EngineSpec
from lesiontk.report.result_table import (
    SUBGROUP_COLUMNS,
    describe_origin,
    format_estimate,
    list_subgroup_cells,
)

SHOWN = ("accuracy", "balanced_accuracy", "macro_auc")


def render_bundle_card(
    spec: EngineSpec,
    description: str,
    assessment: Assessment | None,
    file: str,
    digest: str,
    verdicts: Sequence[GateVerdict] = (),
    refusals: InputChecks | None = None,
) -> str:
    """Return the card (after Mitchell et al., arXiv:1810.03993) in Markdown.

    It describes the engine `file` with the SHA-256 `digest`; `assessment` is the evaluation in that
    file, if any.
    """
    steps = [spec.preprocessing.crop_mode, "resize", *spec.preprocessing.enhance]
    sections = [
        f"# {spec.recipe}, {spec.backend} {spec.precision}\n\n{description}".rstrip(),
        f"**{spec.notice}** It must not be used for diagnosis or treatment decisions. Its "
        "probabilities are not a patient's risk.",
        "## Intended use\n\nResearch and engineering: to study the outputs of this network and "
        "of this engine on dermoscopic images like those of its training. Out of scope: decisions "
        "about a person, images that were not taken with a dermatoscope, lesions of other kinds "
        f"than {', '.join(spec.labels)}, and people or cameras that its data does not cover.",
        f"This card describes `{file}`, SHA-256 `{digest}`.",
        "## Input and output\n\nOne dermoscopic image with the lesion in its centred square: "
        f"{', '.join(step.replace('_', ' ') for step in steps)} to uint8 RGB "
        f"{list(spec.input_shape)}; normalization is inside the engine. Output: probabilities of "
        f"{', '.join(spec.labels)}.",
        f"## Data and licence\n\n{spec.licence or 'Not stated.'}\n\nThe weights are derived from "
        f"these images. Split by lesion, hash `{spec.split_hash}`.",
        "## Decision\n\n" + _describe_decision(assessment or Assessment()),
        "## Results\n\n" + _describe_results(assessment),
        "## Acceptance gates\n\n" + describe_gates(verdicts),
        *([f"## Input checks\n\n{describe_refusals(refusals)}"] if refusals else ()),
    ]
    return "\n\n".join(sections) + "\n"


def describe_gates(verdicts: Sequence[GateVerdict]) -> str:
    """Return the verdicts."""
    if not verdicts:
        return "The engine was not tested by gates."
    lines = [f"- {verdict.describe()}" for verdict in verdicts]
    return f"{describe_outcomes(verdicts)}.\n\n" + "\n".join(lines)


def describe_refusals(checks: InputChecks) -> str:
    """Return which test images and other pictures the input checks refuse."""
    refused = checks.false_refusals
    classes = "\n".join(
        f"| {row.label} | {row.n} | {row.poor_quality} | {row.out_of_domain} | {row.upper:.1%} |"
        for row in checks.classes
    )
    others = ", ".join(f"{row.share:.0%} of {row.n} {row.family}s" for row in checks.families)
    return (
        f"A picture of poor quality, or unlike the training images ({checks.score}), is refused: "
        f"{refused['poor_quality']:.1%} and {refused['out_of_domain']:.1%} of "
        f"{checks.images['validation']} validation images. Of the test images:\n\n"
        "| class | images | poor quality | out of domain | upper 95 % bound |\n"
        f"| --- | --- | --- | --- | --- |\n{classes}\n\n"
        f"Of pictures that are not dermoscopic: {others}."
    )


def _describe_decision(assessment: Assessment) -> str:
    point = assessment.operating_point
    if point is None:
        decision = "No threshold was frozen: the engine returns probabilities without a decision."
    else:
        decision = (
            f"An image is positive if the summed probability of {' + '.join(point.positive)} is at "
            f"least {point.threshold:.4f} (chosen by: {describe_origin(point)})."
        )
    if assessment.temperature is None:
        return decision
    return (
        f"{decision} The confidence is the largest probability at the temperature "
        f"{assessment.temperature:.2f}, fitted on validation."
    )


def _describe_results(assessment: Assessment | None) -> str:
    test = assessment.test if assessment else None
    if assessment is None or test is None:
        return (
            "This file contains no evaluation. `lesiontk evaluate` evaluates it on labelled "
            "images; an engine bundled from its workspace contains its evaluation."
        )
    rows = [
        f"| {name.replace('_', ' ')} | {_count(test, name)} | {format_estimate(value)} |"
        for name, value in test.metrics.items()
        if name.startswith("recall[") or name in SHOWN
    ]
    rows += _list_operating(test, assessment.operating_point)
    findings = "".join(f"**{finding}.**\n\n" for finding in test.findings)
    return (
        f"{findings}Test split, n = {test.n} images of {test.lesions} lesions; in brackets "
        f"{test.confidence:.0%} intervals by lesion.\n\n"
        "| metric | images | value |\n| --- | --- | --- |\n"
        + "\n".join(rows)
        + (
            "\n\nSensitivity and specificity at this threshold were not measured."
            if assessment.operating_point and assessment.operating_point.rule == GIVEN
            else ""
        )
        + _describe_subgroups(test)
    )


def _describe_subgroups(test: TestResult) -> str:
    """Return the table by age, sex and site; empty where the data source has none of them."""
    if not test.subgroups:
        return ""
    table = [
        SUBGROUP_COLUMNS,
        ["---"] * len(SUBGROUP_COLUMNS),
        *list_subgroup_cells(test.subgroups),
    ]
    rows = "\n".join(f"| {' | '.join(cells)} |" for cells in table)
    return (
        "\n\n### By subgroup\n\nAt the frozen threshold. The groups are small: compare "
        f"intervals, not values.\n\n{rows}"
    )


def _list_operating(test: TestResult, point: OperatingPoint | None) -> list[str]:
    labels = point.positive if point else ()
    known = all(label in test.images for label in labels)
    positives = sum(test.images.get(label, 0) for label in labels)
    among = {"sensitivity": positives, "specificity": test.n - positives, "auc": test.n}
    return [
        f"| {name} of {' + '.join(labels)} | {among[name] if known else '–'} | "
        f"{format_estimate(value)} |"
        for name, value in test.at_threshold.items()
    ]


def _count(test: TestResult, metric: str) -> str:
    """Return the number of images of a metric, or a dash if the file does not state it."""
    if not metric.startswith("recall["):
        return str(test.n)
    return str(test.images.get(metric.removeprefix("recall[").removesuffix("]"), "–"))
