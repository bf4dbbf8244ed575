"""The Markdown tables give every engine's figures, the critical class first."""

from __future__ import annotations

from collections.abc import Mapping

from lesiontk.evaluate.evaluation import ExternalEvaluation
from lesiontk.report.render import ReportData
from lesiontk.report.result_table import (
    describe_choice,
    format_estimate,
    make_table,
    operating_points_from_benchmark,
    recalls_from_benchmark,
    table_from_benchmark,
    table_from_external,
)
from tests.report.sample_report import TARGETS, make_external, make_report_data


def read_rows(text: str) -> list[dict[str, str]]:
    """The rows of the one Markdown table in a text, by column."""
    lines = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("|")]
    return [dict(zip(lines[0], cells, strict=True)) for cells in lines[2:]]


def table_of(engines: Mapping[str, ExternalEvaluation]) -> str:
    return table_from_external("Images from elsewhere", engines)


def test_each_engine_has_its_frozen_threshold_and_what_it_gives(sample: ReportData) -> None:
    text = operating_points_from_benchmark(sample.benchmark)
    assert "akiec, bcc, mel" in text
    rows = read_rows(text)
    assert [row["engine"] for row in rows] == list(TARGETS)
    for shown, row in zip(rows, sample.benchmark.rows, strict=True):
        point = row.point
        assert shown["threshold"] == f"{point.threshold:.4g}"
        assert shown["on validation"] == describe_choice(point)
        assert shown["AUC"] == format_estimate(point.auc)
        assert shown["sensitivity"] == format_estimate(point.sensitivity)
        assert shown["specificity"] == format_estimate(point.specificity)
        error = row.metrics["expected_calibration_error"]
        assert shown["calibration error (ECE)"] == format_estimate(error)
    assert rows[0]["sensitivity difference"] == "–"
    assert rows[2]["sensitivity difference"].startswith(("-", "0"))


def test_recalls_have_the_critical_class_first(sample: ReportData) -> None:
    rows = read_rows(recalls_from_benchmark(sample.benchmark))
    assert list(rows[0])[:3] == ["engine", "mel", "akiec"]
    metrics = sample.benchmark.rows[0].metrics
    assert rows[0]["mel"] == format_estimate(metrics["recall[mel]"], 2)


def test_the_benchmark_has_a_row_an_engine(sample: ReportData) -> None:
    rows = read_rows(table_from_benchmark(sample.benchmark))
    assert [row["engine"] for row in rows] == list(TARGETS)


def test_an_emulated_engine_has_scores_and_no_speed() -> None:
    data = make_report_data(targets=(*TARGETS, "tensorrt:int8"))
    text = table_from_benchmark(data.benchmark)
    row = read_rows(text)[-1]
    assert row["engine"] == "tensorrt:int8 (emulated)"
    assert row["median ms (p90)"] == row["peak memory, MB"] == row["faster"] == "–"
    assert "Emulated by ONNX Runtime on the CPU: tensorrt:int8." in text
    for table in (recalls_from_benchmark, operating_points_from_benchmark):
        assert read_rows(table(data.benchmark))[-1]["engine"] == "tensorrt:int8 (emulated)"
    external = make_external(data, emulated_by="ONNX Runtime on the CPU")
    assert all(r["engine"].endswith("(emulated)") for r in read_rows(table_of(external)))


def test_a_speedup_has_its_interval_and_names_a_parent_of_another_runtime(
    sample: ReportData,
) -> None:
    rows = {row["engine"]: row for row in read_rows(table_from_benchmark(sample.benchmark))}
    assert rows["tflite:int8"]["faster"] == "2.78× [2.73, 2.84]"
    assert rows["tflite:float32"]["faster"] == "2.11× [2.07, 2.15] than keras:float32"


def test_an_external_check_says_how_many_images_and_lesions(sample: ReportData) -> None:
    text = table_of(make_external(sample))
    assert "Images from elsewhere: n = 160 images of 80 lesions" in text
    assert "left out" not in text
    rows = read_rows(text)
    assert [row["engine"] for row in rows] == list(TARGETS)
    point = sample.metrics["tflite:int8"].operating_point
    assert rows[2]["sensitivity"] == format_estimate(point.sensitivity)


def test_an_external_check_says_what_it_does_not_know_and_left_out(sample: ReportData) -> None:
    text = table_of(
        make_external(sample, lesion_ids_known=False, seen_images={"train": 3, "validation": 1})
    )
    assert "unknown lesions" in text
    assert "4 images of lesions seen in training are left out" in text


def test_text_from_the_data_stays_in_its_cell() -> None:
    table = make_table(["image", "p"], [["a|b\n<img onerror=x>", "p90 <= 5, **bold**"]])
    assert table.splitlines()[2:] == ["| a\\|b &lt;img onerror=x> | p90 <= 5, **bold** |"]
