"""Sentences are computed from the data, and say what matters first."""

from __future__ import annotations

import re

from lesiontk.report.wording import (
    describe_quantization,
    summarise_engine,
    summarise_run,
)

from .sample_report import change_benchmark, make_report_data

NBSP = "\N{NO-BREAK SPACE}"


def test_the_summary_is_computed_from_the_data() -> None:
    sentences = summarise_run(make_report_data(noise=0.8).benchmark)
    assert len(sentences) == 2
    assert re.fullmatch(
        r"The int8 TFLite engine is 2\.78× faster and 3\.78× smaller than its parent, float32 "
        rf"TFLite; balanced accuracy changes by −[\d.]+ points \(95{NBSP}% interval −[\d.]+ to "
        r"[−+][\d.]+\), melanoma recall by −[\d.]+ points \(−[\d.]+ to [−+][\d.]+\); \d+ of 160 "
        r"test images of 80 lesions change class\.",
        sentences[0],
    )


def test_the_summary_says_when_nothing_changes() -> None:
    sentence = summarise_run(make_report_data(noise=0.0).benchmark)[0]
    assert "none of the 160 test images of 80 lesions changes class" in sentence
    assert "points" not in sentence


def test_an_engine_that_failed_its_gate_is_not_the_headline() -> None:
    data = make_report_data()
    results = [{**r, "passed": r["engine"] != "tflite:int8"} for r in data.benchmark["gate"]]
    first, second = summarise_run(change_benchmark(data, gate=results))
    assert first.startswith("The int8 ONNX engine")
    assert second.startswith("The int8 TFLite engine")


def test_a_slower_and_equally_large_engine_is_called_so() -> None:
    data = make_report_data()
    row = data.benchmark["rows"][2]
    versus = {**row["versus_parent"], "speedup": 0.5, "size_ratio": 1.0}
    sentence = summarise_engine({**row, "versus_parent": versus}, "mel")
    assert "is 2.00× slower than and practically as large as its parent" in sentence


def test_layers_in_higher_precision_are_told_by_it() -> None:
    facts = {"weight_bits": 8, "float_layers": 3}
    assert describe_quantization(facts) == "8-bit weights, 3 layers in float32"
    facts["float16_layers"] = 2
    assert describe_quantization(facts) == (
        "8-bit weights, 2 layers in float16, 1 layer in float32"
    )
    assert describe_quantization({"float_layers": 0}) == "no layer in float"
