"""The report on speed: scenarios, the path from file to answer, roofline, layers, conditions."""

from __future__ import annotations

from dataclasses import replace

from lesiontk.backends.execution import Execution
from lesiontk.report.render import ReportData, draw_pictures, render_report
from lesiontk.report.speed_table import list_roofline
from tests.report.page import Page
from tests.report.sample_report import TARGETS, make_report_data

SCENARIOS = "Latency and throughput of each engine and scenario"
PATH = "Parts of the path from file to answer"
ROOFLINE = "Roofline of the engines"
LAYERS = "Latency of the layers of tflite:int8"


def read(data: ReportData) -> Page:
    return Page(render_report(data, {}))


def test_each_engine_has_each_scenario() -> None:
    head, *rows = read(make_report_data()).tables[SCENARIOS]
    assert len(rows) == 3 * len(TARGETS)
    int8 = {row[1]: dict(zip(head, row, strict=True)) for row in rows if row[0] == "tflite:int8"}
    single, offline = int8["single stream"], int8["offline, 64 images a query"]
    assert (single["threads"], single["median ms"], single["images/s"]) == ("1", "0.19", "5291")
    assert (offline["threads"], offline["images/s"]) == ("2 × 1", "8466")
    assert single["faster"] == "2.78× [2.73, 2.84]"
    assert single["noise"] == "calm"
    assert single["mJ/image"] == "–"


def test_a_noisy_scenario_is_marked_and_emulated_engines_have_none() -> None:
    data = make_report_data(targets=(*TARGETS, "tensorrt:int8"))
    rows = list(data.benchmark.rows)
    timings = rows[2].scenarios
    rows[2] = replace(rows[2], scenarios=(replace(timings[0], noise=("so",)), *timings[1:]))
    page = read(
        make_report_data(
            targets=(*TARGETS, "tensorrt:int8"),
            benchmark=replace(data.benchmark, rows=tuple(rows)),
        )
    )
    marks = {(row[0], row[1]): row[-1] for row in page.tables[SCENARIOS][1:]}
    assert {key for key, mark in marks.items() if mark == "noisy"} == {
        ("tflite:int8", "single stream")
    }
    assert not [target for target, _ in marks if target.startswith("tensorrt")]
    engines = page.tables["Engines: latency, size, memory and scores"][1:]
    assert [row[:2] for row in engines if row[0].endswith("noisy")] == [
        ["TFLiteParetonoisy", "int8"]
    ]


def test_the_path_has_its_parts_and_the_load() -> None:
    head, *rows = read(make_report_data()).tables[PATH]
    int8 = dict(zip(head, rows[2], strict=True))
    assert (int8["decode ms"], int8["inference ms"], int8["load ms"]) == ("2.40", "0.19", "4.20")
    assert int8["above idle, MB"] == "7"


def test_engines_are_compared_with_the_roof() -> None:
    page = read(make_report_data())
    head, *rows = page.tables[ROOFLINE]
    found = {row[0]: dict(zip(head, row, strict=True)) for row in rows}
    assert "keras:float32" not in found  # its work is not known
    assert found["tflite:int8"]["GOP/s"] == "903.7"
    assert found["tflite:int8"]["attainable GOP/s"] == "1240.0"
    assert found["tflite:int8"]["share of the roof"] == "73%"
    assert "Measured peak: 350 GOP/s in float32, 1240 in int8" in page.text


def test_engines_on_a_gpu_have_no_place_below_the_roof_of_the_cpu() -> None:
    benchmark = make_report_data().benchmark

    def placed(execution: Execution) -> bool:
        rows = tuple(replace(row, execution=(execution,)) for row in benchmark.rows)
        return bool(list_roofline(replace(benchmark, rows=rows)))

    assert placed(Execution("provider", "CUDAExecutionProvider", "CPUExecutionProvider"))
    assert placed(Execution("delegate", "XNNPACK", "none"))
    assert placed(Execution("device", "CPU", "CPU"))
    assert not placed(Execution("provider", "CUDAExecutionProvider", "CUDAExecutionProvider"))
    assert not placed(Execution("runtime", "TensorRT", "TensorRT"))
    assert not placed(Execution("runtime", "TensorRT", "ONNX Runtime"))
    assert not placed(Execution("device", "GPU", "GPU"))


def test_the_slowest_layer_is_first() -> None:
    page = read(make_report_data())
    assert [row[0] for row in page.tables[LAYERS][1:3]] == ["block2_conv", "block1_conv"]
    alternative = draw_pictures(make_report_data())["layers tflite:int8"].alternative
    assert "The slowest is block2_conv" in alternative


def test_what_the_machine_does_not_tell_is_said() -> None:
    text = read(make_report_data()).text
    assert "governor performance, frequency 2300 and 2290 MHz, load 0.1 and 1.1" in text
    assert "The temperature is not known: no thermal zone." in text
    assert "Energy is not known: the system has no /sys/class/powercap (RAPL)." in text
