"""Tables hold what the run found out, the most urgent first."""

from __future__ import annotations

from dataclasses import replace

import pytest

from lesiontk.report.render import ReportData
from lesiontk.report.tables import (
    MAX_CHANGED,
    label_order,
    list_changed,
    list_compared,
    list_confusions,
)
from tests.report.sample_report import SEVEN, TARGETS, TWO, make_report_data


def test_the_critical_class_comes_first() -> None:
    seven = make_report_data(SEVEN, "mel").benchmark
    assert label_order(seven)[0] == "mel"
    assert label_order(replace(seven, critical="bcc"))[:2] == ("bcc", "mel")
    assert label_order(make_report_data(TWO, "malignant").benchmark) == ("malignant", "benign")


def test_lost_melanomas_come_first_in_the_changed_images(sample: ReportData) -> None:
    table, _ = list_changed(sample.benchmark, sample.images, sample.confidences)
    assert table.engine == "tflite:int8"
    assert 0 < table.critical_losses < len(table.rows)
    assert [row.is_critical_loss for row in table.rows] == sorted(
        (row.is_critical_loss for row in table.rows), reverse=True
    )
    first = table.rows[0]
    assert (first.true_label, first.from_label, first.right_after) == ("mel", "mel", False)
    assert first.image is not None
    assert first.image == sample.images[first.row]
    assert first.confidence_before == sample.confidences["tflite:float32"][first.row]
    assert first.confidence_after == sample.confidences["tflite:int8"][first.row]


def test_the_counts_of_changed_images_add_up_and_the_list_is_capped(sample: ReportData) -> None:
    (row,) = [row for row in sample.benchmark.rows if row.latency.median == 0.189]
    versus = row.versus_parent
    assert versus is not None
    changed = versus.changed
    table = list_changed(sample.benchmark, sample.images, {})[0]
    assert table.images == len(changed) > MAX_CHANGED
    assert len(table.rows) == MAX_CHANGED
    assert table.left_out == len(changed) - MAX_CHANGED
    assert table.lost == versus.mcnemar.b
    assert table.gained == versus.mcnemar.c


def test_confusion_matrices_hold_the_counts_of_the_evaluation(sample: ReportData) -> None:
    tables = list_confusions(sample.benchmark, sample.metrics)
    assert [table.engines for table in tables] == [
        ("tflite:float32", "onnx:float32"),
        ("tflite:int8",),
        ("onnx:int8",),
    ]
    assert tables[0].labels[0] == "mel"
    evaluation = sample.metrics["tflite:int8"]
    mel, nv = evaluation.labels.index("mel"), evaluation.labels.index("nv")
    row = tables[1].rows[0]
    assert row.counts[tables[1].labels.index("nv")] == evaluation.confusion[mel][nv]
    assert row.counts[0] == evaluation.confusion[mel][mel]
    assert row.total == sum(evaluation.confusion[mel])
    assert sum(share or 0 for share in row.shares) == pytest.approx(1)


def test_without_reduced_precision_all_engines_are_compared() -> None:
    data = make_report_data(targets=TARGETS[:2])
    assert list_compared(data.benchmark) == TARGETS[:2]
    assert list_compared(make_report_data().benchmark) == (
        "tflite:float32", "onnx:float32", "tflite:int8", "onnx:int8",
    )  # fmt: skip
