"""A benchmark as Markdown tables, for result files and model cards."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from lesiontk.bench.benchmark import (
    Benchmark,
    EngineRow,
    list_emulated,
    list_fallbacks,
    size_facts,
)
from lesiontk.evaluate.bootstrap import Estimate
from lesiontk.evaluate.evaluation import ExternalEvaluation
from lesiontk.evaluate.operating_point import (
    DEFAULT,
    DEFAULT_THRESHOLD,
    GIVEN,
    PARENT_SENSITIVITY,
    OperatingPoint,
)
from lesiontk.evaluate.subgroups import SubgroupResult
from lesiontk.evaluate.verdict import describe_outcomes


def format_estimate(estimate: Estimate | None, digits: int = 3, interval: str = "[{}, {}]") -> str:
    """Return ``0.812 [0.790, 0.834]``, or a dash if it is undefined."""
    if estimate is None or estimate.value is None:
        return "–"
    value = f"{estimate.value:z.{digits}f}"
    if estimate.low is None:
        return value
    ends = (f"{end:z.{digits}f}" for end in (estimate.low, estimate.high))
    return f"{value} {interval.format(*ends)}"


def format_speedup(row: EngineRow, interval: str = "[{}, {}]") -> str:
    """Return ``2.78× [2.70, 2.85]``, with the parent's runtime where it is another.

    A dash where there is no parent, or one of the two was emulated.
    """
    versus = row.versus_parent
    if versus is None or versus.speedup is None or row.emulated_by:
        return "–"
    text, ends = f"{versus.speedup:.2f}×", versus.speedup_interval
    if ends:
        text += f" {interval.format(*(f'{end:.2f}' for end in ends))}"
    return text if row.has_own_parent else f"{text} than {versus.parent_name}"


SUBGROUP_COLUMNS = ("subgroup", "images", "positive", "sensitivity", "specificity", "AUC")


def list_subgroup_cells(subgroups: Iterable[SubgroupResult]) -> list[list[str]]:
    """Return the cells of `SUBGROUP_COLUMNS` for each subgroup."""
    return [
        [
            f"{group.attribute}: {group.value}",
            str(group.n),
            str(group.positives),
            *map(format_estimate, (group.sensitivity, group.specificity, group.auc)),
        ]
        for group in subgroups
    ]


def describe_emulated(emulated: Mapping[str, str]) -> str:
    """Return a note on the figures of emulated engines; `emulated` is from `list_emulated`."""
    engines, emulators = ", ".join(emulated), ", ".join(dict.fromkeys(emulated.values()))
    return (
        f"Emulated by {emulators}: {engines}. The scores are those of the graph's own arithmetic, "
        "not of TensorRT on a GPU; speed and memory are not known."
    )


def describe_origin(point: OperatingPoint) -> str:
    """Return where the threshold of an operating point comes from."""
    if point.rule == GIVEN:
        return "user-supplied"
    if point.rule == DEFAULT or point.validation is None:
        return f"default {DEFAULT_THRESHOLD:g}"
    return f"{name_rule(point.rule)}, {point.validation.n} validation images"


def name_rule(rule: str) -> str:
    """Return a rule of thresholds in words."""
    return "the parent's sensitivity kept" if rule == PARENT_SENSITIVITY else rule


def describe_choice(point: OperatingPoint) -> str:
    """Return the rule of a frozen threshold, and what it gave where it was chosen."""
    chosen = point.validation
    if chosen is None:
        return describe_origin(point)
    return (
        f"{name_rule(point.rule)}, n = {chosen.n}, sensitivity {chosen.sensitivity:.3f}, "
        f"specificity {chosen.specificity:.3f}"
    )


def format_sizes(trained: int, now: int) -> str:
    """Return the size of an engine's images, and before it that of training where it is another."""
    return str(now) if now == trained else f"{trained} → {now}"


def table_from_benchmark(benchmark: Benchmark) -> str:
    """Return the engines of a benchmark as Markdown, each beside its full-precision parent."""
    critical = f"recall[{benchmark.critical}]"
    lines = [
        "| engine | median ms (p90) | size, MB | peak memory, MB | accuracy | balanced accuracy "
        f"| macro AUC | {critical} | against | faster | smaller | balanced-accuracy difference |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    sizes = size_facts(benchmark.rows)
    for row in benchmark.rows:
        versus = row.versus_parent
        cells = [
            row.name + sizes[row.key],
            *_describe_cost(row),
            *(
                format_estimate(row.metrics[name])
                for name in ("accuracy", "balanced_accuracy", "macro_auc", critical)
            ),
        ]
        if versus is None:
            cells += ["–"] * 4
        else:
            cells += [
                versus.parent_name,
                format_speedup(row),
                f"{versus.size_ratio:.2f}×",
                format_estimate(versus.differences["balanced_accuracy"], 4),
            ]
        lines.append("| " + " | ".join(cells) + " |")
    if benchmark.devices:
        lines += ["", make_table(DEVICE_COLUMNS, list_device_cells(benchmark)).rstrip("\n")]
    if emulated := list_emulated(benchmark.rows):
        lines += ["", describe_emulated(emulated)]
    for target, sentences in list_fallbacks(benchmark.rows).items():
        lines += ["", f"Fallback of {target}: {'; '.join(sentences)}."]
    return "\n".join(lines) + "\n"


DEVICE_COLUMNS = [
    "device", "engine", "runtime", "threads", "median ms", "p90 ms", "n", "peak memory, MB",
    "energy, mJ", "balanced accuracy", "golden images",
]  # fmt: skip


def list_device_cells(benchmark: Benchmark) -> list[list[str]]:
    """Return a row of `DEVICE_COLUMNS` for each device."""
    rows = []
    for row in benchmark.devices:
        memory, balanced = row.peak_memory_bytes, row.balanced_accuracy
        rows.append(
            [
                row.device,
                row.target,
                row.runtime,
                str(row.threads),
                format_ms(row.latency_ms.median),
                format_ms(row.latency_ms.p90),
                str(row.latency_ms.n),
                "–" if memory is None else f"{memory / 1e6:.0f}",
                "–" if row.energy_mj is None else f"{row.energy_mj:.2f}",
                "–" if balanced is None else f"{balanced:.3f} (n = {row.n})",
                f"{row.agreement:.1%} alike",
            ]
        )
    return rows


def _describe_cost(row: EngineRow) -> list[str]:
    """Return latency, size and memory; dashes for what emulation cannot measure."""
    size, memory = f"{row.size_bytes / 1e6:.2f}", row.peak_memory_bytes
    if row.emulated_by or row.latency_ms is None or memory is None:
        return ["–", size, "–"]
    latency = row.latency_ms
    return [
        f"{format_ms(latency.median)} ({format_ms(latency.p90)})",
        size,
        f"{memory / 1e6:.0f}",
    ]


def format_ms(value: float | None) -> str:
    """Return milliseconds to two decimals; a dash if `value` is not known."""
    return "–" if value is None else f"{value:.2f}"


def gates_from_benchmark(benchmark: Benchmark) -> str:
    """Return the verdict of each gate on each engine as Markdown."""
    verdicts = benchmark.verdicts
    if not verdicts:
        return "No gate was specified.\n"
    tests = max((verdict.tests or 0 for verdict in verdicts), default=0)
    adjusted = f" Passing is adjusted for {tests} tests (Holm)." if tests else ""
    return (
        f"{describe_outcomes(verdicts)}. A gate passes if the loss is shown to lie within the "
        f"margin, fails if more is shown to be lost; else the test images show neither.{adjusted}"
        "\n\n"
    ) + make_table(
        ["gate", "engine", "against", "measured", "one-sided bounds", "verdict"],
        [
            [
                f"`{verdict.gate}`",
                verdict.engine,
                verdict.parent or "–",
                "–" if verdict.measured is None else f"{verdict.measured:z.4f}",
                "–"
                if verdict.low is None or verdict.high is None
                else f"{verdict.low:z.4f}, {verdict.high:z.4f}",
                f"{verdict.outcome.words}{f': {verdict.reason}' if verdict.reason else ''}",
            ]
            for verdict in verdicts
        ],
    )


def operating_points_from_benchmark(benchmark: Benchmark) -> str:
    """Return what each engine's frozen threshold gives on test, and its calibration error."""
    point = benchmark.rows[0].point
    return (
        f"Positive are {', '.join(point.positive)}, by their summed probability. Threshold and "
        "temperature are chosen for each engine on its own outputs on validation and frozen: the "
        f"threshold of the trained model by the rule `{point.rule}`, that of an engine so that "
        "it keeps its parent's sensitivity there. AUC, sensitivity, specificity and calibration "
        "errors are those of test.\n\n"
    ) + make_table(
        ["engine", "threshold", "on validation", "AUC", "sensitivity", "specificity",
         "sensitivity difference", "calibration error (ECE)", "temperature", "ECE at it"],
        [
            [
                row.name,
                f"{row.point.threshold:.4g}",
                describe_choice(row.point),
                format_estimate(row.point.auc),
                format_estimate(row.point.sensitivity),
                format_estimate(row.point.specificity),
                format_estimate(
                    row.versus_parent.differences["sensitivity"] if row.versus_parent else None, 4
                ),
                format_estimate(row.metrics["expected_calibration_error"]),
                f"{row.scaled.temperature:.2f}",
                format_estimate(row.scaled.expected_calibration_error),
            ]
            for row in benchmark.rows
        ],
    )  # fmt: skip


def recalls_from_benchmark(benchmark: Benchmark) -> str:
    """Return each engine's recall of each class by arg-max, the critical class first."""
    critical = benchmark.critical
    labels = [critical, *(label for label in benchmark.labels if label != critical)]
    return make_table(
        ["engine", *labels],
        [
            [
                row.name,
                *(format_estimate(row.metrics[f"recall[{label}]"], 2) for label in labels),
            ]
            for row in benchmark.rows
        ],
    )


def table_from_external(name: str, engines: Mapping[str, ExternalEvaluation]) -> str:
    """Return the check on images from elsewhere, called `name`: one row an engine.

    `engines` maps targets to evaluations at their frozen thresholds.
    """
    first = next(iter(engines.values()))
    critical = f"recall[{first.critical}]"
    lesions = (
        f"{first.lesions} lesions"
        if first.lesion_ids_known
        else "unknown lesions, so that each counts as one"
    )
    left_out = sum(first.seen_images.values())
    return (
        f"{name}: n = {first.n} images of {lesions}; the thresholds are those "
        "frozen on validation."
        + (f" {left_out} images of lesions seen in training are left out." if left_out else "")
        + "\n\n"
    ) + make_table(
        ["engine", "accuracy", "balanced accuracy", critical, "AUC", "sensitivity", "specificity",
         "calibration error (ECE)"],
        [
            [
                target + (" (emulated)" if found.emulated_by else ""),
                *map(
                    format_estimate,
                    (
                        found.metrics["accuracy"],
                        found.metrics["balanced_accuracy"],
                        found.metrics[critical],
                        found.operating_point.auc,
                        found.operating_point.sensitivity,
                        found.operating_point.specificity,
                        found.metrics["expected_calibration_error"],
                    ),
                ),
            ]
            for target, found in engines.items()
        ],
    )  # fmt: skip


def make_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table as Markdown. Text from the data can neither leave its cell nor be HTML."""
    plain = [[_escape(cell) for cell in cells] for cells in rows]
    lines = [columns, ["---"] * len(columns), *plain]
    return "".join("| " + " | ".join(cells) + " |\n" for cells in lines)


def _escape(cell: str) -> str:
    """Return a cell without line breaks, with `|` and the `<` of a tag escaped."""
    one_line = " ".join(cell.split("\n")).replace("\r", " ").replace("|", "\\|")
    return re.sub(r"<(?=[A-Za-z/!?])", "&lt;", one_line)
