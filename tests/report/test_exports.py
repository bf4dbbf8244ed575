"""JSON, CSV and Markdown have what the page has."""

from __future__ import annotations

import csv
import json
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from lesiontk.evaluate.bootstrap import Estimate
from lesiontk.report.exports import (
    CSV,
    FIGURES,
    JSON,
    MARKDOWN,
    PICTURES,
    document_from_report,
    list_figures,
    markdown_from_report,
    write_exports,
)
from lesiontk.report.render import ReportData
from lesiontk.report.wording import summarize_run
from tests.report.sample_robustness import make_robustness


@pytest.fixture(scope="module")
def data(sample: ReportData) -> ReportData:
    return replace(sample, robustness={"tflite:int8": make_robustness()})


def test_the_files_are_written_beside_each_other(data: ReportData, tmp_path: Path) -> None:
    assert write_exports(data, tmp_path) == (JSON, CSV, MARKDOWN)
    document = json.loads((tmp_path / JSON).read_text(encoding="utf-8"))
    assert document == json.loads(json.dumps(document_from_report(data)))
    with (tmp_path / CSV).open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert tuple(rows[0]) == FIGURES
    assert (tmp_path / MARKDOWN).read_text(encoding="utf-8") == markdown_from_report(data)


def test_the_document_starts_with_the_verdict_and_has_every_part(data: ReportData) -> None:
    document = document_from_report(data)
    assert document["verdict"] == list(summarize_run(data.benchmark))
    parts = {field.name for field in fields(data)} - set(PICTURES)
    assert parts <= set(document)
    assert document["benchmark"] == data.benchmark.to_document()
    assert document["robustness"]["tflite:int8"]["n"] == 210


def test_no_path_of_this_machine_is_in_the_document(data: ReportData) -> None:
    private = replace(data, recipe={**data.recipe, "data": {"path": "/home/someone/HAM10000"}})
    assert document_from_report(private)["recipe"]["data"]["path"] == "HAM10000"
    assert "someone" not in markdown_from_report(private)


def test_a_number_that_json_lacks_is_null(data: ReportData) -> None:
    curves = [{"epoch": 1.0, "loss": float("nan")}]
    assert document_from_report(replace(data, curves=curves))["curves"] == [
        {"epoch": 1.0, "loss": None}
    ]


def read_figures(data: ReportData) -> dict[tuple[str, str], dict[str, Any]]:
    rows = [dict(zip(FIGURES, row, strict=True)) for row in list_figures(data)]
    found = {(row["engine"], row["figure"]): row for row in rows}
    assert len(found) == len(rows)
    return found


def test_every_figure_is_that_of_the_benchmark(data: ReportData) -> None:
    figures = read_figures(data)
    for row in data.benchmark.rows:
        assert figures[row.key, "median_ms"]["value"] == row.latency.median
        assert figures[row.key, "size_bytes"]["value"] == row.size_bytes
        found = figures[row.key, "sensitivity"]
        of = row.point.sensitivity
        assert Estimate(found["value"], found["low"], found["high"]) == of
        for name, score in row.metrics.items():
            assert figures[row.key, name]["value"] == score.value
            if row.versus_parent and name in row.versus_parent.differences:
                change = row.versus_parent.differences[name]
                assert figures[row.key, name]["difference"] == change.value
                assert figures[row.key, name]["parent"] == row.versus_parent.parent_name


def test_markdown_says_the_verdict_first_and_has_each_section(data: ReportData) -> None:
    text = markdown_from_report(data)
    assert text.index(summarize_run(data.benchmark)[0]) < text.index("## Engines")
    for title in ("Acceptance gates", "Classes", "Images that change class", "Corrupted images"):
        assert f"\n## {title}\n" in text
    assert "| hair 1 | 5 hairs of 0.08 mm |" in text
    assert "None" not in text


def test_the_speed_of_each_scenario_is_in_both(data: ReportData) -> None:
    figures = {(row[0], row[1]): row[2] for row in list_figures(data)}
    timings = {timing.scenario: timing for timing in data.benchmark.rows[2].scenarios}
    found = figures["tflite:int8", "offline.images_per_second"]
    assert found == timings["offline"].images_per_second
    assert figures["tflite:int8", "path.decode_ms"] == 2.4
    text = markdown_from_report(data)
    for title in ("Latency and throughput", "From file to answer", "How near to the roof",
                  "Layers of tflite:int8"):  # fmt: skip
        assert f"### {title}\n" in text
    assert "Energy is not known" in text
