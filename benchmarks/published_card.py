"""The parts of a model card that describe the engine files beside it, read from those files."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from model_card import render_results
from steps import DescribedStep

from lesiontk.backends import find_backend, is_engine_file
from lesiontk.bench.benchmark import Benchmark, EngineRow
from lesiontk.data.tasks import task_of_engine
from lesiontk.document import Record
from lesiontk.errors import DataError
from lesiontk.evaluate.assessment import Assessment
from lesiontk.evaluate.robustness import Robustness
from lesiontk.evaluate.verdict import GateVerdict, describe_outcomes
from lesiontk.files.hashing import hash_file
from lesiontk.records import EngineSpec, RecallConstraint, ValidationScores
from lesiontk.report.result_table import format_estimate
from lesiontk.report.robustness_rows import describe_robustness, describe_shown
from lesiontk.report.wording import name_backend
from lesiontk.system.machine import Machine

SECTION, BEFORE = "### Hash, settings and figures of each file", "Every file contains its labels"
"""The part of a card that this module writes, and what follows it."""
RESULTS = "## Results on the test split"
COMPRESSED, QUANTIZATION = "## Compressed", "## Quantization"
"""The section on engines of a compressed network, and the one that follows it."""
CORRUPTED, LIMITS = "## On corrupted images", "## Limits"
"""The section of `robustness.py`, and the one that follows it."""
INT8_FILES = ("- `tflite_int8", "- `onnx_int8", "- `tensorrt_int8")


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplacedEngine(Record):
    """An engine of a compressed network, published instead of the uncompressed network's.

    `compress` are the recipe entries that made the network in `seconds`, `steps` what each changed.
    """

    file: str
    row: EngineRow
    gate: tuple[GateVerdict, ...]
    benchmark: str = ""
    parameters: int
    validation: ValidationScores
    recall_constraint: RecallConstraint | None = None
    steps: tuple[DescribedStep, ...]
    compress: tuple[Mapping[str, Mapping[str, Any]], ...]
    seconds: float
    critical: str
    machine: Machine

    @classmethod
    def upgrade(cls, document: dict[str, Any]) -> dict[str, Any]:
        """Return the document; earlier ones call `recall_constraint` ``kept_recalls``."""
        names = {"kept_recalls": "recall_constraint"}
        return {names.get(name, name): value for name, value in document.items()}


def read_replaced(published: Mapping[str, Any]) -> dict[str, ReplacedEngine]:
    """Return target -> the engine that replaces its own, of a recipe's results."""
    replaced = published.get("replaced", {})
    return {target: ReplacedEngine.from_document(entry) for target, entry in replaced.items()}


def list_engine_files(folder: Path) -> list[Path]:
    """Return the engine files of a folder, by name."""
    return sorted(path for path in folder.iterdir() if is_engine_file(path.name))


def update_files_section(card: str, folder: Path) -> str:
    """Return the card with its section on the engine files beside it written anew.

    If this changes nothing, the card agrees with the files: hash, size of the images, labels,
    threshold, temperature and figures. Raises `DataError` for a card without a list of files.
    """
    head, found, tail = card.partition(BEFORE)
    if not found:
        raise DataError(f"the card in {folder} lacks {BEFORE!r}; expected a published model card.")
    tail = re.sub(
        r"Input uint8 RGB \[1, \d+, \d+, 3\]", "Input uint8 RGB [1, px, px, 3]", tail, count=1
    )
    return f"{head.partition(SECTION)[0].rstrip()}\n\n{describe_files(folder)}\n\n{found}{tail}"


def update_card(card: str, folder: Path, published: Mapping[str, Any]) -> str:
    """Return the card of a folder with the sections on its engines and results written anew.

    `published` is the recipe's results: their ``benchmark``, and under ``replaced`` the engines of
    a compressed network that replace others; the engines that they replace are not described.
    """
    replaced = read_replaced(published)
    card = update_results_section(card, Benchmark.from_document(published["benchmark"]))
    if replaced:
        card = update_compressed_section(card, replaced)
    return update_files_section(drop_rows(card, replaced), folder)


def update_results_section(card: str, benchmark: Benchmark) -> str:
    """Return the card with its figures and verdicts replaced by those of a benchmark.

    Raises `DataError` for a card without results.
    """
    head, found, tail = card.partition(RESULTS)
    if not found:
        raise DataError(f"the card lacks {RESULTS!r}; expected a published model card.")
    _, next_section, rest = tail.partition("\n## ")
    return f"{head}{render_results(benchmark)}\n{next_section}{rest}"


def update_corrupted_section(card: str, found: Robustness) -> str:
    """Return the card with the results of its int8 TFLite engine on corrupted images.

    Raises `DataError` for a card without limits.
    """
    if LIMITS not in card:
        raise DataError(f"the card lacks {LIMITS!r}; expected a published model card.")
    head, _, limits = card.partition(LIMITS)
    described = (
        f"{describe_robustness(found)} {describe_shown(found)} "
        "[All corruptions](../../results/robustness.md)."
    )
    return (
        f"{head.partition(CORRUPTED)[0].rstrip()}\n\n{CORRUPTED}\n\n{described}\n\n{LIMITS}{limits}"
    )


def drop_rows(card: str, targets: Collection[str]) -> str:
    """Return the card without the table rows of targets whose file is another network's."""
    rows = tuple(f"| {target} {end}" for target in targets for end in ("|", "at "))
    return "".join(line for line in card.splitlines(keepends=True) if not line.startswith(rows))


def update_compressed_section(card: str, replaced: Mapping[str, ReplacedEngine]) -> str:
    """Return a model card with the engines that replaced others."""
    whole, _, rest = card.partition(QUANTIZATION)
    files = {f"- `{entry.file}`" for entry in replaced.values()}
    lines: list[str] = []
    others = False
    known = {line.partition(": ")[0] for line in whole.partition(COMPRESSED)[0].splitlines()}
    added = [f"{start}: of a smaller network, see Compressed" for start in sorted(files - known)]
    for line in whole.partition(COMPRESSED)[0].splitlines():
        if line.startswith("- `"):
            lines, added = lines + added, []
        line = line.replace(
            "Too large to be published: ",
            "Too large to be published, of the uncompressed network: ",
        )
        start = line.partition(": ")[0]
        lines.append(f"{start}: of a smaller network, see Compressed" if start in files else line)
        others |= start.startswith(INT8_FILES) and start not in files
    described = "\n".join(
        [*lines, COMPRESSED, "", describe_engines(replaced, others=others), "", QUANTIZATION]
    )
    return described + rest


def describe_engines(replaced: Mapping[str, ReplacedEngine], *, others: bool) -> str:
    """Return the origin and the costs of the engines that replace others, in Markdown.

    `others` is whether int8 engines of the uncompressed network are published beside them.
    """
    first = next(iter(replaced.values()))
    row, validation, constraint = first.row, first.validation, first.recall_constraint
    size = row.image_size
    made = "; ".join(f"{step.step}: {step.what}" for step in first.steps)
    raised = constraint.bias_raised if constraint else {}
    biases = ", ".join(f"{label} by {shift:.2f}" for label, shift in raised.items())
    kept = f" Biases were raised to keep the recalls on validation: {biases}." if biases else ""
    files = [f"`{entry.file}`" for entry in replaced.values()]
    stay = ", and so are the other int8 engines"
    timed = "queries" if row.scenarios else "rounds"
    verdicts = [verdict for entry in replaced.values() for verdict in entry.gate]
    return (
        f"{', '.join(files)}: of a smaller network, "
        f"{first.parameters:,} parameters, input [1, {size}, {size}, 3], made from the one above "
        f"in {first.seconds / 60:.0f} minutes ({made}).{kept} On validation its balanced "
        f"accuracy is {validation.balanced_accuracy:.3f} (n = {validation.n}). Compared "
        "with the uncompressed network, in one benchmark on "
        f"{first.machine.processor} (n = {row.latency.n} {timed}), on the "
        f"test split (n = {row.n}):\n\n"
        + "\n".join(describe_engine(entry) for entry in replaced.values())
        + f"\n\nTheir gates: {describe_outcomes(verdicts)} (see Acceptance gates). The tables "
        "below are of the uncompressed network"
        f"{stay if others else ''}. Settings: `replaced` in the results' JSON."
    )


def describe_engine(entry: ReplacedEngine) -> str:
    """Return the figures of one engine."""
    row, critical = entry.row, f"recall[{entry.critical}]"
    versus = row.versus_parent
    if versus is None:
        raise DataError(
            f"{entry.file} was not compared with a parent; publish it together with its parent."
        )
    described = [
        f"{name.replace('_', ' ')} {format_estimate(row.metrics[name])}, difference "
        f"{format_estimate(versus.differences[name])}"
        for name in ("balanced_accuracy", critical, "accuracy")
    ]
    speed = (
        "emulated here by ONNX Runtime, so its speed is unknown; "
        if row.emulated_by
        else f"{versus.speedup:.2f}× faster, "
    )
    parent = name_backend(versus.parent.partition(":")[0])
    return (
        f"- `{entry.file}` against float32 {parent}: {speed}{versus.size_ratio:.2f}× "
        f"smaller; {'; '.join(described)}; specificity at the frozen threshold, difference "
        f"{format_estimate(versus.differences['specificity'])}"
    )


def describe_files(folder: Path) -> str:
    """Return the section of a card: one table row per engine file, and the labels in order."""
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
        " Figures are of the test split, at the threshold in the file, with intervals by lesion in "
        "brackets; a dash: not evaluated." + "".join(f"\n\n{finding}" for finding in findings)
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
        *(format_estimate(value) for value in shown),
        "–" if test is None else str(test.n),
    ]
