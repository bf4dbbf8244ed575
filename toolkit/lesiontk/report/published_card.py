"""What a model card says of the files beside it, read from those very files."""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path

from lesiontk.backends import find_backend, is_engine_file
from lesiontk.data.tasks import task_of_engine
from lesiontk.errors import DataError
from lesiontk.evaluate.assessment import Assessment
from lesiontk.hashing import hash_file
from lesiontk.records import EngineSpec
from lesiontk.report.result_table import format_estimate

SECTION, BEFORE = "### What each file carries", "Every file carries its labels"
"""The part of a card that this module writes, and what follows it."""


def list_engine_files(folder: Path) -> list[Path]:
    """Return the engine files of a folder, by name."""
    return sorted(path for path in folder.iterdir() if is_engine_file(path.name))


def update_files_section(card: str, folder: Path) -> str:
    """Return the card with what each engine file beside it carries, in the place of an older part.

    A card that this leaves as it is says what its files say: hash, size of the images, labels,
    threshold, temperature and figures. Raises `DataError` for a card without a list of files.
    """
    head, found, tail = card.partition(BEFORE)
    if not found:
        raise DataError(f"the card in {folder} lacks {BEFORE!r}; expected a published model card.")
    tail = re.sub(
        r"Input uint8 RGB \[1, \d+, \d+, 3\]", "Input uint8 RGB [1, px, px, 3]", tail, count=1
    )
    return f"{head.partition(SECTION)[0].rstrip()}\n\n{describe_files(folder)}\n\n{found}{tail}"


def drop_rows(card: str, targets: Collection[str]) -> str:
    """Return the card without the table rows of targets whose file is another network's."""
    rows = tuple(f"| {target} {end}" for target in targets for end in ("|", "at "))
    return "".join(line for line in card.splitlines(keepends=True) if not line.startswith(rows))


def describe_files(folder: Path) -> str:
    """Return the section of a card: a row an engine file, and the labels in their order."""
    lines = [
        "| file | SHA-256 | px | threshold | temperature | balanced accuracy | recall of the "
        "critical class | sensitivity | specificity | n |",
        "| --- " * 10 + "|",
    ]
    labels: dict[str, list[str]] = {}
    findings: list[str] = []
    for path in list_engine_files(folder):
        backend = find_backend(path)()
        spec, assessment = backend.read_spec(path), backend.read_assessment(path)
        lines.append("| " + " | ".join(_row(path, spec, assessment)) + " |")
        labels.setdefault(", ".join(spec.labels), []).append(path.name)
        if assessment and assessment.test:
            findings += [f"`{path.name}`: {finding}." for finding in assessment.test.findings]
    named = [
        f"Labels{'' if len(labels) == 1 else ' of ' + ', '.join(files)}, in the order of the "
        f"outputs: {names}."
        for names, files in labels.items()
    ]
    return "\n".join([SECTION, "", *lines, "", *named]) + (
        " Figures are those of the test split at the file's own threshold, in brackets their "
        "intervals by lesion; a dash: not evaluated."
        + "".join(f"\n\n{finding}" for finding in findings)
    )


def _row(path: Path, spec: EngineSpec, assessment: Assessment | None) -> list[str]:
    known = assessment or Assessment()
    point, test = known.operating_point, known.test
    metrics, at_threshold = (test.metrics, test.at_threshold) if test else ({}, {})
    shown = [
        metrics.get("balanced_accuracy"),
        metrics.get(f"recall[{task_of_engine(spec).critical}]"),
        at_threshold.get("sensitivity"),
        at_threshold.get("specificity"),
    ]
    return [
        f"`{path.name}`",
        f"`{hash_file(path)}`",
        str(spec.preprocessing.image_size),
        "–" if point is None else f"{point.threshold:.4f}",
        "–" if known.temperature is None else f"{known.temperature:.2f}",
        *(format_estimate(value.to_json() if value else None) for value in shown),
        "–" if test is None else str(test.n),
    ]
