"""The summary says first what is wrong, and claims no speed that was not measured."""

from __future__ import annotations

import re
from dataclasses import replace

from lesiontk.bench.benchmark import Benchmark
from lesiontk.evaluate.bootstrap import Estimate
from lesiontk.models.architecture import InitialWeights
from lesiontk.report.render import ReportData, draw_pictures
from lesiontk.report.wording import describe_at_threshold
from lesiontk.stages.import_model import ModelImport
from tests.model_facts import make_facts
from tests.report.page import Page, read
from tests.report.sample_report import SEVEN, TARGETS, TWO, make_report_data, make_split

ENGINES = "Engines: latency, size, memory and scores"
AGAINST = "Engines against their full-precision parents"
SIX = (*TARGETS, "tensorrt:int8")


def summary_of(page: Page) -> str:
    """What stands above the table of engines."""
    return page.text.partition("Definitions")[0]


def test_a_network_that_finds_none_of_the_critical_class_is_told_before_its_gates() -> None:
    page = read(make_report_data(answers="blind"))
    text = summary_of(page)
    assert (
        "The engine finds 0 of 22 images of melanoma by the highest probability (0.0 %, 95 % "
        "interval 0.0–28.5 %)" in text
    )
    warning = text.index("Check melanoma recall before any gate.")
    assert warning < text.index("gates passed")
    assert f"{', '.join(TARGETS)}: finds 0 of 22 images of melanoma" in text
    assert "it misses more than it finds" in text


def test_the_summary_tells_what_the_frozen_threshold_finds() -> None:
    row = make_report_data().benchmark.rows[2]
    text = summary_of(read(make_report_data()))
    assert "At its frozen threshold, 0.489, the engine predicts 81.4\N{NO-BREAK SPACE}% (" in text
    assert re.search(
        r"of the 70 images of akiec \+ bcc \+ mel positive, [−+][\d.]+ points \([^)]+\) against "
        r"its parent at the parent's threshold\.",
        text,
    )
    alone = make_report_data(targets=("keras:float32",)).benchmark.rows[0]
    assert describe_at_threshold(alone).endswith("positive.")
    nothing = Estimate(None, None, None)
    unknown = replace(row, operating_point=replace(row.point, sensitivity=nothing))
    assert describe_at_threshold(unknown).startswith("No image is positive")


def test_one_that_finds_nearly_all_is_not_warned_of() -> None:
    """The twin."""
    text = summary_of(read(make_report_data(TWO, "malignant")))
    assert "before any gate" not in text
    assert "not separate the classes" not in text
    assert re.search(r"The engine finds 7\d of 80 images of malignant lesions", text)


def test_a_network_that_answers_one_class_is_called_so_with_its_parents() -> None:
    page = read(make_report_data(SEVEN, answers="constant"))
    text = summary_of(page)
    assert f"{', '.join(TARGETS)}: predicts vasc for 160 of 160 images, of which 22 show it" in text
    assert "is not shown to rank classes better than chance: macro AUC 0." in text
    summary = text.index("The int8 TFLite engine")
    assert text.index("The network does not separate the classes") < summary


def test_no_latency_of_an_emulated_engine_stands_anywhere() -> None:
    """Its 0.0777 ms would be the fastest of all, and on the Pareto front."""
    data = make_report_data(targets=SIX)
    page = read(data)
    assert "0.0777" not in page.text
    row = page.tables[ENGINES][-1]
    assert row[0] == "TensorRTemulated"
    assert row[2:5] == ["–", "–", "–"]
    assert row[7] == "–"
    assert page.tables[AGAINST][-1][2] == "–"
    assert "Emulated by ONNX Runtime on the CPU: tensorrt:int8." in summary_of(page)
    pictures = draw_pictures(data)
    assert "tensorrt" not in pictures["pareto"].alternative
    assert "tensorrt:int8 (emulated)" in pictures["recalls"].alternative
    assert "tensorrt:int8 (emulated)" in pictures["reliability"].alternative


def test_an_emulated_headline_has_no_latency() -> None:
    text = summary_of(read(make_report_data(targets=("keras:float32", "tensorrt:int8"))))
    assert "not known: emulated by ONNX Runtime on the CPU" in text
    assert "faster" not in text


def test_speedups_have_intervals_and_name_another_runtime() -> None:
    rows = {row[0]: row for row in read(make_report_data()).tables[AGAINST]}
    assert rows["tflite:int8"][2] == "2.78×2.73–2.84"
    assert rows["tflite:float32"][2] == "2.11×2.07–2.15another runtime"


def disturb(data: ReportData, *noise: str) -> Benchmark:
    rows = list(data.benchmark.rows)
    timing = replace(rows[2].scenarios[0], noise=noise)
    rows[2] = replace(rows[2], scenarios=(timing, *rows[2].scenarios[1:]))
    return replace(data.benchmark, rows=tuple(rows))


def test_a_noisy_run_is_warned_of_and_a_quiet_one_is_not() -> None:
    data = make_report_data()
    load = "other programs used 40% of the cores"
    noisy = summary_of(read(make_report_data(benchmark=disturb(data, load))))
    assert "Noisy run: the latencies of tflite:int8 vary from round to round" in noisy
    assert f"single stream: {load}" in noisy
    assert "measure again" in noisy
    assert "Noisy run" not in summary_of(read(make_report_data(benchmark=disturb(data))))


def test_classes_that_no_image_shows_are_told() -> None:
    """A test set of one class has a balanced accuracy of one recall."""
    data = make_report_data(TWO, "malignant")
    rows = tuple(replace(row, confusion=((0, 0), (10, 70))) for row in data.benchmark.rows)
    changed = replace(data.benchmark, rows=rows)
    text = summary_of(read(make_report_data(TWO, "malignant", benchmark=changed)))
    assert "Not all classes were tested. No image shows benign: balanced accuracy" in text
    assert "are of 1 of 2 classes" in text
    assert "Not all classes" not in summary_of(read(data))


def test_a_parent_that_found_nothing_has_nothing_to_lose() -> None:
    blind = read(make_report_data(answers="blind")).text
    assert "There was no image of melanoma to lose: the parent recognized none." in blind
    same = read(make_report_data(noise=0.05)).text
    assert "None of the 19 images of melanoma that the parent recognized is lost." in same


def test_every_table_and_matrix_marks_what_was_emulated() -> None:
    page = read(make_report_data(targets=SIX))
    for region, rows in page.tables.items():
        cells = [cell for row in rows for cell in row if "tensorrt:int8" in cell]
        assert all("tensorrt:int8 (emulated)" in cell for cell in cells), region
    assert "tensorrt:int8 (emulated) against keras:float32" in page.text
    assert "The outputs of an emulated engine are emulated here, too." in page.text


def test_an_imported_model_is_not_told_to_have_been_trained_here() -> None:
    imported = ModelImport(
        file="theirs.keras",
        labels=SEVEN,
        labels_assumed=False,
        layers=9,
        left_out=(),
        copied=(),
        greatest_difference=1e-7,
    )
    model = make_facts("import", imported, epochs=0)
    text = read(make_report_data(model=model, curves=[])).text
    assert "imported from theirs.keras" in text
    assert "AdamW" not in text
    assert "initial weights: " not in text
    assert "AdamW" in read(make_report_data()).text


def test_the_file_of_the_initial_weights_is_identified() -> None:
    assert "initial weights: none" in read(make_report_data()).text
    model = make_facts("train", InitialWeights("a.h5", "c" * 64))
    text = read(make_report_data(model=model)).text
    assert "initial weights: none, SHA-256 cccccccccccc" in text


def test_a_split_that_leaks_is_not_told_to_keep_lesions_together() -> None:
    leaky = make_split(SEVEN, leaky=True, lesions_on_several_sides=7)
    text = read(make_report_data(split=leaky)).text
    assert (
        "Single images were assigned to the subsets: 7 lesions have images on more than one" in text
    )
    assert "Whole lesions were assigned" not in text
    assert "Each group stays in one subset" not in text


def boxes_of(page: Page) -> list[str]:
    """The colours of the boxes, in order."""
    classes = [attributes.get("class") or "" for tag, attributes in page.tags if tag == "div"]
    return [name.removeprefix("box ") for name in classes if name.startswith("box ")]


def test_gates_that_pass_are_not_green_where_melanomas_are_missed() -> None:
    blind = read(make_report_data(answers="blind", max_drop=0.9))
    assert "gates passed. Each is shown" in blind.text
    assert "The warnings above still apply." in blind.text
    assert "passed" not in boxes_of(blind)
    useful = read(make_report_data(TWO, "malignant", max_drop=0.9))
    assert "passed" in boxes_of(useful)
    assert "warnings above still" not in useful.text
