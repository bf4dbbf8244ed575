"""A commented task file for images that no packaged task matches."""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from lesiontk.data.image_table import InspectedImage
from lesiontk.data.split import SplitItem, group_images
from lesiontk.data.tasks import canonical_diagnosis, load_task, normalize_diagnosis
from lesiontk.errors import DataError, UsageError, suggest
from lesiontk.records import SUBSETS

OTHER = "other"


@dataclass(frozen=True, slots=True)
class FoundClass:
    """A label, its diagnoses, and their numbers of images and lesions."""

    label: str
    diagnoses: tuple[str, ...]
    images: int
    lesions: int


def find_classes(inspected: Sequence[InspectedImage]) -> list[FoundClass]:
    """Return the classes of inspected images, sorted by name.

    Synonyms of a diagnosis are one class. Diagnoses with too few lesions for a split are merged
    into the class "other". Raises `DataError` if that has too few, too.
    """
    items = [
        SplitItem(
            row.image_id,
            row.lesion_id,
            row.diagnosis,
            row.pixel_sha256,
            patient_id=row.patient_id,
            copy_of=row.copy_of or "",
            alike=row.alike or "",
        )
        for row in inspected
    ]
    groups = group_images(items)
    images = Counter(item.label for item in items)
    lesions: dict[str, set[str]] = defaultdict(set)
    for item in items:
        lesions[item.label].add(groups[item.image_id])
    synonyms: dict[str, list[str]] = defaultdict(list)
    for diagnosis in sorted(images):
        synonyms[canonical_diagnosis(diagnosis)].append(diagnosis)
    diagnoses_of: dict[str, list[str]] = defaultdict(list)
    for diagnoses in synonyms.values():
        enough = len(set().union(*(lesions[name] for name in diagnoses))) >= len(SUBSETS)
        diagnoses_of[name_label(diagnoses[0]) if enough else OTHER] += diagnoses
    classes = [
        FoundClass(
            label,
            tuple(diagnoses),
            sum(images[name] for name in diagnoses),
            len(set().union(*(lesions[name] for name in diagnoses))),
        )
        for label, diagnoses in sorted(diagnoses_of.items())
    ]
    for found in classes:
        if found.lesions < len(SUBSETS):
            raise DataError(
                f"{' and '.join(found.diagnoses)}: {found.lesions} lesions in all; a split needs "
                f"at least {len(SUBSETS)} of a class, one for each subset. Add images, or remove "
                "these from the folder."
            )
    if len(classes) < 2:
        raise DataError(f"there is one class, {classes[0].label}; expected two or more.")
    return classes


def choose_critical(classes: Sequence[FoundClass], requested: str | None) -> str:
    """Return the critical label: the requested one, else melanoma's.

    Raises `UsageError` for an unknown label, or if none was requested and none is melanoma's.
    """
    labels = [found.label for found in classes]
    if requested is not None:
        for found in classes:
            if normalize_diagnosis(requested) in map(
                normalize_diagnosis, (found.label, *found.diagnoses)
            ):
                return found.label
        raise UsageError(
            f"--critical is {requested!r}; expected one of "
            f"{', '.join(labels)}.{suggest(requested, labels)}"
        )
    for code in ("mel", "malignant"):
        evident = [c.label for c in classes if code in map(canonical_diagnosis, c.diagnoses)]
        if len(evident) == 1:
            return evident[0]
    raise UsageError(
        f"the classes are {', '.join(labels)}; expected the one that must not be missed; "
        "specify --critical CLASS."
    )


def task_text(classes: Sequence[FoundClass], critical: str, title: str, source: str) -> str:
    """Return the YAML of a task with these classes; `source` is the folder of the images."""
    malignancy = load_task("malignancy").mapping
    positive = [
        found.label
        for found in classes
        if found.label == critical
        or any(malignancy.get(canonical_diagnosis(name)) == "malignant" for name in found.diagnoses)
    ]
    lines = [
        f"# The classes of the images in {comment(source)}, as `lesiontk task new` found them.",
        "# Use it with `--set data.task=FILE`, or as `data: {task: FILE}` in a recipe.",
        f"title: {scalar(title)}",
        "",
        "# In the order of the model's outputs.",
        "labels:",
        *(f"- {scalar(c.label)}  # {c.images} images of {c.lesions} lesions" for c in classes),
        "",
        "# The class that must not be missed: its sensitivity has priority.",
        f"critical: {scalar(critical)}",
    ]
    if 1 < len(positive) < len(classes):
        lines += [
            "",
            "# The classes that a threshold separates from the rest: lesions that need a doctor.",
            f"positive: [{', '.join(map(scalar, positive))}]",
        ]
    lines += ["", "# Diagnosis in the data: label. A diagnosis that is not listed is an error."]
    lines += ["mapping:"]
    lines += [
        f"  {scalar(name)}: {scalar(found.label)}" for found in classes for name in found.diagnoses
    ]
    return "\n".join(lines) + "\n"


def name_label(diagnosis: str) -> str:
    """Return a diagnosis as a label: lower case, words joined by underscores."""
    return re.sub(r"\W+", "_", diagnosis.lower()).strip("_") or "unnamed"


def scalar(value: Any) -> str:
    """Return one value as a YAML scalar on one line."""
    text = yaml.safe_dump(value, allow_unicode=True, width=10_000, default_flow_style=True)
    text = text.removesuffix("\n").removesuffix("\n...")
    return json.dumps(value, ensure_ascii=False) if "\n" in text else text  # JSON is YAML


def comment(text: str) -> str:
    """Return a text that fits on one comment line."""
    return text if text.isprintable() else repr(text)
