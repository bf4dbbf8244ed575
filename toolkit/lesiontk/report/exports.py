"""The content of the report as JSON, as a table of all figures (CSV), and as Markdown."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import yaml

from lesiontk.bench.benchmark import Benchmark, EngineRow
from lesiontk.document import plain_value
from lesiontk.evaluate.bootstrap import Estimate
from lesiontk.report import result_table, speed_table, tables, wording
from lesiontk.report.render import ReportData, shorten_paths
from lesiontk.report.robustness_rows import (
    COLUMNS,
    describe_robustness,
    describe_shown,
    list_robustness_cells,
)

JSON, CSV, MARKDOWN = "report.json", "report.csv", "report.md"
FORMAT = 1
PICTURES = ("heatmaps", "flip_pictures", "images", "confidences")
"""Fields of the data that a document without pictures has no use for."""
FIGURES = ("engine", "figure", "value", "low", "high", "n", "parent", "difference",
           "difference_low", "difference_high")  # fmt: skip


def write_exports(data: ReportData, folder: Path) -> tuple[str, ...]:
    """Write the report as JSON, CSV and Markdown, and return the names of the files."""
    document = json.dumps(document_from_report(data), indent=1, allow_nan=False)
    (folder / JSON).write_text(document + "\n", encoding="utf-8")
    with (folder / CSV).open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(FIGURES)
        writer.writerows(list_figures(data))
    (folder / MARKDOWN).write_text(markdown_from_report(data), encoding="utf-8")
    return JSON, CSV, MARKDOWN


def document_from_report(data: ReportData) -> dict[str, Any]:
    """Return all results as a JSON document: the verdict, then each part by its name."""
    benchmark = data.benchmark
    parts = {
        field.name: _finite(plain_value(getattr(data, field.name)))
        for field in fields(data)
        if field.name not in PICTURES
    }
    return {
        "format": FORMAT,
        "verdict": list(wording.summarize_run(benchmark)),
        **parts,
        "recipe": shorten_paths(plain_value(data.recipe)),
    }


def _finite(value: Any) -> Any:
    """Return a document with null for numbers that JSON does not have."""
    if isinstance(value, dict):
        return {key: _finite(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_finite(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def list_figures(data: ReportData) -> Iterator[list[Any]]:
    """Yield a row of `FIGURES` for each figure of each engine; unknown cells are empty."""
    for row in data.benchmark.rows:
        for name, value, n in _list_costs(row):
            yield [row.key, name, value, None, None, n, *[None] * 4]
        versus = row.versus_parent
        scores = dict(row.metrics)
        if row.operating_point is not None:
            point = row.operating_point
            scores |= {
                "sensitivity": point.sensitivity,
                "specificity": point.specificity,
                "auc": point.auc,
            }
        for name, score in scores.items():
            change = versus.differences.get(name) if versus else None
            parent = versus.parent_name if versus and change else None
            yield [row.key, name, *_ends(score), row.n, parent, *_ends(change)]
        if versus and versus.speedup is not None:
            low, high = versus.speedup_interval or (None, None)
            yield [row.key, "speedup", versus.speedup, low, high, None, versus.parent_name,
                   *[None] * 3]  # fmt: skip


def _list_costs(row: EngineRow) -> Iterator[tuple[str, float | None, int | None]]:
    yield "size_bytes", row.size_bytes, None
    if row.emulated_by is None and row.latency_ms is not None:
        yield "median_ms", row.latency_ms.median, row.latency_ms.n
        yield "p90_ms", row.latency_ms.p90, row.latency_ms.n
        yield "peak_memory_bytes", row.peak_memory_bytes, None
        for timing in row.scenarios:
            latency = timing.latency_ms
            yield f"{timing.scenario}.median_ms", latency.median, latency.n
            yield f"{timing.scenario}.p90_ms", latency.p90, latency.n
            yield f"{timing.scenario}.p99_ms", latency.p99, latency.n
            yield f"{timing.scenario}.images_per_second", timing.images_per_second, latency.n
        if row.path is not None:
            for name in ("decode", "resize", "inference"):
                yield f"path.{name}_ms", getattr(row.path, name), row.path.n
            yield "path.whole_ms", row.path.whole.median, row.path.n


def _ends(estimate: Estimate | None) -> tuple[float | None, float | None, float | None]:
    if estimate is None:
        return None, None, None
    return estimate.value, estimate.low, estimate.high


def markdown_from_report(data: ReportData) -> str:
    """Return the report as Markdown, without pictures."""
    benchmark = data.benchmark
    sentences = wording.summarize_run(benchmark)
    headline = wording.order_by_importance(benchmark)[0]
    parts = [
        f"# {data.name}",
        data.description,
        "> Research software, not a medical device.",
        f"**{sentences[0]}** {wording.describe_critical(benchmark, headline)}",
        wording.describe_at_threshold(headline),
        *sentences[1:],
        *(f"- {finding}." for finding in benchmark.findings),
        "## Engines",
        result_table.table_from_benchmark(benchmark),
        *_speed_parts(benchmark),
        "## Acceptance gates",
        result_table.gates_from_benchmark(benchmark),
        "## Classes",
        result_table.recalls_from_benchmark(benchmark),
        result_table.operating_points_from_benchmark(benchmark),
        *_subgroup_parts(data),
        *_changed_parts(data),
        *_robustness_parts(data),
        "## Provenance",
        result_table.make_table(
            ("tool", "versions"), [[n, ", ".join(v)] for n, v in data.versions.items()]
        ),
        f"Test split {benchmark.split_hash[:12]}. Recipe:",
        f"```yaml\n{yaml.safe_dump(shorten_paths(data.recipe), sort_keys=False)}```",
    ]
    return "\n\n".join(part.strip() for part in parts if part) + "\n"


def _speed_parts(benchmark: Benchmark) -> list[str]:
    """Return the tables of scenarios, the path from file to answer, the roofline and layers."""
    tables = [
        ("Latency and throughput", speed_table.SCENARIO_COLUMNS,
         speed_table.list_scenario_cells(benchmark), speed_table.describe_conditions(benchmark)),
        ("From file to answer", speed_table.PATH_COLUMNS, speed_table.list_path_cells(benchmark),
         [f"Measured on {speed_table.describe_pictures(benchmark)}."]),
        ("How near to the roof", speed_table.ROOFLINE_COLUMNS,
         speed_table.list_roofline_cells(benchmark), [speed_table.describe_peaks(benchmark)]),
        *(
            (f"Layers of {row.key}", speed_table.LAYER_COLUMNS,
             speed_table.list_layer_cells(row.profile), [speed_table.describe_profile(row.profile)])
            for row in benchmark.rows
            if row.profile is not None
        ),
    ]  # fmt: skip
    return [
        part
        for title, columns, cells, notes in tables
        if cells
        for part in (f"### {title}", result_table.make_table(columns, cells), " ".join(notes))
    ]


def _subgroup_parts(data: ReportData) -> list[str]:
    parts = []
    for target, evaluation in data.metrics.items():
        if evaluation.subgroups:
            cells = result_table.list_subgroup_cells(evaluation.subgroups)
            parts += [
                f"### {target}",
                result_table.make_table(result_table.SUBGROUP_COLUMNS, cells),
            ]
    return ["## Subgroups", *parts] if parts else []


def _changed_parts(data: ReportData) -> list[str]:
    parts = []
    for table in tables.list_changed(data.benchmark, data.images, data.confidences):
        parts += [
            f"### {table.engine} against {table.parent}",
            f"{table.images} of {table.judged} images change class: {table.lost} from right to "
            f"wrong, {table.gained} from wrong to right. {table.critical_losses} images of "
            f"{data.benchmark.critical} that the parent recognized are lost.",
        ]
        if table.rows:
            columns = ("image", "lesion", "true", "parent", "engine")
            parts.append(result_table.make_table(columns, [_changed(row) for row in table.rows]))
        if table.left_out:
            parts.append(f"{table.left_out} more are not listed.")
    return ["## Images that change class", *parts] if parts else []


def _changed(row: tables.ChangedImage) -> Sequence[str]:
    image = row.image
    return (
        image.image_id if image else f"row {row.row}",
        (image.lesion_id if image else None) or "–",
        row.true_label,
        row.from_label,
        row.to_label,
    )


def _robustness_parts(data: ReportData) -> list[str]:
    parts = []
    for found in data.robustness.values():
        parts += [
            f"### {found.target} against {found.parent_name}",
            f"{describe_robustness(found)} {describe_shown(found)}",
            result_table.make_table(COLUMNS, list_robustness_cells(found)),
        ]
    return ["## Corrupted images", *parts] if parts else []
