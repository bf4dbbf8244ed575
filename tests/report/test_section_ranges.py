"""The report shows what each activation can hold, and what did not run as it was asked to."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

from lesiontk.backends.execution import Execution
from lesiontk.backends.quantized_tensors import TensorRow
from lesiontk.report.drawing import style_of_engines
from lesiontk.report.ranges_plot import MOST, plot_ranges
from lesiontk.report.result_table import table_from_benchmark
from tests.report.page import read
from tests.report.sample_report import make_calibration, make_report_data

LONG = "network/block1_relu/Relu;network/block1_bn/FusedBatchNormV3;network/block1_conv/Conv2D"
ROWS = (
    TensorRow(LONG, "int8", 0.0, 41.5, 0.0, 40.0, 40 / 255, -128),
    TensorRow("input<b>", "uint8", None, None, -1.0, 127 / 128, 1 / 128, 128),
)


def test_every_activation_has_its_row() -> None:
    page = read(make_report_data(tensors={"tflite:int8": ROWS}))
    table = page.tables["Quantized activations of tflite:int8"]
    assert table[1][1:] == ["int8", "0", "41.5", "0", "40.0", "0.157", "−128"]
    assert re.fullmatch(r"network/.*….*/Conv2D", table[1][0])
    assert table[2] == ["input<b>", "uint8", "–", "–", "−1.00", "0.992", "0.00781", "128"]
    assert LONG in page.values("title")


def test_engines_without_quantized_activations_have_no_such_section() -> None:
    assert "Ranges of the activations" not in read(make_report_data()).text


def test_the_figure_names_the_widest() -> None:
    style = style_of_engines(["tflite:int8"])["tflite:int8"]
    picture = plot_ranges([*ROWS, *[ROWS[1]] * 2 * MOST], "tflite:int8", style)
    assert f"The widest is {LONG}: 0 to 40, in steps of 0.157." in picture.alternative
    assert plot_ranges(ROWS, "tflite:int8", style).height < picture.height


def test_the_list_is_described_by_site_and_brightness() -> None:
    calibration = make_calibration(
        make_report_data().benchmark.labels,
        cover=("site", "brightness"),
        images_by_site={"back": 70, "face": 35},
        images_by_brightness={"darkest": 26, "dark": 27, "bright": 26, "brightest": 26},
        brightness_edges=(120.25, 140.0, 161.5),
        sites_of_training=3,
    )
    text = read(make_report_data(calibration=calibration)).text
    assert "balanced by class, within a class stratified by site and brightness" in text
    assert "2 of the 3 sites of the training images: back 70, face 35" in text
    assert "darkest 26, dark 27" in text


def fall_back(**changes: Any) -> Any:
    data = make_report_data()
    fell = Execution("provider", "CUDAExecutionProvider", "CPUExecutionProvider", "no driver")
    rows = tuple(
        replace(row, execution=(fell,)) if row.backend == "onnx" else row
        for row in data.benchmark.rows
    )
    return make_report_data(benchmark=replace(data.benchmark, rows=rows), **changes)


def test_an_engine_that_fell_back_is_marked_and_explained() -> None:
    page = read(fall_back())
    table = page.tables["Engines: latency, size, memory and scores"]
    assert [row[0].endswith("fell back") for row in table[1:]] == [
        False, False, False, True, True,
    ]  # fmt: skip
    assert "onnx:int8 did not run as requested: provider CUDAExecutionProvider" in page.text
    assert "fell back" not in read(make_report_data()).text


def test_a_result_table_says_what_fell_back() -> None:
    assert "Fallback of onnx:int8: provider CUDA" in table_from_benchmark(fall_back().benchmark)
    assert "Fallback" not in table_from_benchmark(make_report_data().benchmark)
