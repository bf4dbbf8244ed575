"""The Markdown tables give every engine's figures, the critical class first."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

from lesiontk.backends.onnx.backend import EXACT
from lesiontk.evaluate.evaluation import ExternalEvaluation
from lesiontk.records import MAY_HAVE_SEEN_TEST, Preprocessing
from lesiontk.report.model_card import ExternalCheck, render_model_card
from lesiontk.report.render import ReportData
from lesiontk.report.result_table import (
    describe_choice,
    format_estimate,
    operating_points_from_benchmark,
    recalls_from_benchmark,
    table_from_benchmark,
    table_from_external,
)
from tests.report.sample_report import TARGETS, make_engine, make_report_data


def read_rows(text: str) -> list[dict[str, str]]:
    """The rows of the one Markdown table in a text, by column."""
    lines = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("|")]
    return [dict(zip(lines[0], cells, strict=True)) for cells in lines[2:]]


def make_external(data: ReportData, **changes: Any) -> ExternalCheck:
    """A check on other images: what the evaluations found, as if it had been elsewhere."""
    known: dict[str, Any] = {"recipe": "", "lesion_ids_known": True, "split_known": True}
    engines = {
        target: ExternalEvaluation(
            **{**evaluation.field_values(), "critical": "mel", **known, **changes}
        )
        for target, evaluation in data.metrics.items()
    }
    return ExternalCheck("Images from elsewhere", engines)


def table_of(check: ExternalCheck) -> str:
    return table_from_external(check.name, check.engines)


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


def test_a_model_card_has_the_threshold_and_the_external_check() -> None:
    data = make_report_data(targets=(*TARGETS, "tensorrt:int8"))
    model = {
        **data.model,
        "labels": list(data.benchmark.labels),
        "critical": "mel",
        "preprocessing": asdict(Preprocessing(64)),
        "validation": {"balanced_accuracy": 0.8, "n": 100},
    }
    arguments: dict[str, Any] = {
        "recipe": {
            **data.recipe,
            "data": {"image_size": 64},
            "model": {"weights": "none"},
            "train": {"head_epochs": 0, "imbalance": ["none"]},
        },
        "model": model,
        "training_seconds": 60.0,
        "split": data.split,
        "calibration": data.calibration,
        "benchmark": data.benchmark,
        "engines": [replace(make_engine("tensorrt:int8"), file="tensorrt_int8.onnx")],
        "sizes": {"320x240": 9, "600x450": 1},
        "command": "lesiontk run sample",
    }
    card = render_model_card(**arguments, external=make_external(data))
    assert operating_points_from_benchmark(data.benchmark) in card
    assert "## External check\n\nImages from elsewhere: n = 160" in card
    assert "judged on one split of one collection and on Images from elsewhere." in card
    plain = render_model_card(**arguments)
    assert "External check" not in plain
    assert "judged on one split of one collection. " in plain
    assert "Austria" not in plain  # the sample is not told to be HAM10000
    arguments["recipe"]["data"]["source"] = "ham10000"
    assert "HAM10000 comes from Austria" in render_model_card(**arguments)
    assert "Too large" not in card
    said = "it may have seen the test images"
    assert said not in card
    foreign = {**arguments, "model": {**model, MAY_HAVE_SEEN_TEST: True}}
    assert said in render_model_card(**foreign)
    large = render_model_card(**arguments, left_out=["onnx:int8"])
    assert "Too large to be here: onnx:int8." in large
    weights = {"file": "a.pth", "sha256": "0123456789ab" + 52 * "f", "package": "p", "version": "3"}
    pretrained = {
        "recipe": {**arguments["recipe"], "model": {"weights": "imagenet"}},
        "model": {**model, "initial_weights": weights},
    }
    assert (
        "trained from pretrained weights (imagenet, p 3, SHA-256 0123456789ab)."
        in render_model_card(**{**arguments, **pretrained})
    )
    assert "It was made in" not in card
    assert "trained from random weights." in card
    assert "on the class shares of the collection" in card
    assert "- `tensorrt_int8.onnx`: agrees with its parent on 97.7% of 256 images, emulated" in card
    assert "(symmetric in `tensorrt_int8.onnx`)" in card
    assert (
        "onnx:float32: finds 19 of 22 images of melanoma by the highest probability (86.4 %, 95 % "
        "interval" in card
    )
    assert "tflite:int8: finds 15 of 22 images of melanoma" in card
    assert "22 images are too few to show that it finds more than it misses" in card
    assert EXACT not in card
    onnx = replace(make_engine("onnx:int8"), file="onnx_int8.onnx")
    for bits, told in ((8, True), (7, False)):
        arguments["engines"] = [replace(onnx, quantization={"weight_bits": bits})]
        assert (f"`{EXACT}` to 1 for `onnx_int8.onnx`" in render_model_card(**arguments)) == told
    assert "The images were of 2 sizes, most 320x240, pixels" in card
    taught = {"teacher": {"file": "tflite_int8.tflite"}, "history": [{"stage": "train"}]}
    arguments["model"] = {**model, **taught}
    assert (
        "It was made in 2 steps: train (trained from its starting weights), then distill "
        "(taught by tflite_int8.tflite). "
    ) in render_model_card(**arguments, stage="distill")
