"""Findings on the data as text, for the report and the commands."""

from __future__ import annotations

from lesiontk.calibration.drawn_list import DrawnList
from lesiontk.data.dealt_split import DealtSplit
from lesiontk.data.duplicates import Contradictions
from lesiontk.data.inspection import Inspection
from lesiontk.report.formatting import count_things, format_count

SHOWN = 10
"""Number of examples in a sentence; the others are counted."""


def describe_near_duplicates(inspection: Inspection, split: DealtSplit | None = None) -> str:
    """Return the near-duplicates and their handling by the split, as text."""
    pairs, across = inspection.near_duplicates, inspection.near_duplicates_across_lesions
    parts = [count_things(pairs, "pair")] if pairs else []
    if across:
        parts[0] += f", {format_count(across)} of different lesions"
    parts += [
        f"{format_count(crowd.images)} images are near-duplicates, {crowd.first} and others, whose "
        "pairs are not listed"
        for crowd in inspection.crowds
    ]
    if split is not None and parts:
        parts.append(_describe_subsets(split))
    return "; ".join(parts) or "none"


def _describe_subsets(split: DealtSplit) -> str:
    apart = split.near_duplicates_on_several_sides
    if not apart:
        return "none is in two subsets of the split"
    if split.leaky:
        why = "the split goes by image"
    elif split.near_duplicates == "accept":
        why = "they were accepted with --accept-near-duplicates"
    else:
        why = "they have lesion ids, which differ"
    return f"{count_things(apart, 'set')} of them in several subsets of the split: {why}"


def describe_sites(drawn: DrawnList) -> str:
    """Return the number of training body sites that a calibration list covers, as text."""
    covered, sites = len(drawn.images_by_site), drawn.sites_of_training
    if sites == 1:
        return "the only one of the training images"
    share = f"all {sites}" if covered == sites else f"{covered} of the {sites}"
    return f"{share} sites of the training images"


def describe_contradictions(found: Contradictions) -> str:
    """Return the images with several diagnoses as a sentence, the first of them by name."""
    number = found.pictures
    shown = [
        " and ".join(f"{image} ({diagnosis})" for diagnosis, image in images.items())
        for images in found.examples[:SHOWN]
    ]
    more = f" and {number - len(shown)} more" if number > len(shown) else ""
    return (
        f"{number} {'image has' if number == 1 else 'images have'} several "
        f"diagnoses: {'; '.join(shown)}{more}; expected one diagnosis for each image. Correct "
        "it, or remove these images."
    )
