"""Sentences are computed from the data, and say what matters first."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

from lesiontk.backends.backend import Quantization
from lesiontk.bench.benchmark import ParentComparison
from lesiontk.evaluate.verdict import Outcome
from lesiontk.report.wording import (
    compare_speed,
    describe_critical,
    describe_quantization,
    describe_speed,
    order_by_importance,
    summarize_engine,
    summarize_run,
)
from tests.report.sample_report import TARGETS, make_report_data

NBSP = "\N{NO-BREAK SPACE}"


def change_speed(
    speedup: float, interval: tuple[float, float] | None, **changes: Any
) -> ParentComparison:
    """The sample's comparison of an int8 engine, with another speed."""
    versus = make_report_data().benchmark.rows[2].versus_parent
    assert versus is not None
    return replace(versus, speedup=speedup, speedup_interval=interval, **changes)


def test_the_summary_is_computed_from_the_data() -> None:
    sentences = summarize_run(make_report_data(noise=0.8).benchmark)
    assert len(sentences) == 2
    assert re.fullmatch(
        rf"The int8 TFLite engine is 2\.78× faster \(95{NBSP}% interval 2\.73–2\.84\) and 3\.78× "
        rf"smaller than its parent, float32 TFLite; balanced accuracy changes by −[\d.]+ points "
        rf"\(95{NBSP}% interval −[\d.]+ to "
        r"[−+][\d.]+\), melanoma recall by −[\d.]+ points \(−[\d.]+ to [−+][\d.]+\); \d+ of 160 "
        r"test images of 80 lesions change class\.",
        sentences[0],
    )


def test_the_summary_says_when_nothing_changes() -> None:
    sentence = summarize_run(make_report_data(noise=0.0).benchmark)[0]
    assert "none of the 160 test images of 80 lesions changes its most probable class" in sentence
    assert f"leaves melanoma recall −28.5 to +28.5 points (95{NBSP}% interval)" in sentence


def test_an_engine_that_failed_its_gate_is_not_the_headline() -> None:
    data = make_report_data()
    outcomes = {"tflite:int8": Outcome.FAILED, "onnx:int8": Outcome.PASSED}
    results = tuple(replace(v, outcome=outcomes[v.engine], reason="") for v in data.benchmark.gate)
    first, second = summarize_run(replace(data.benchmark, gate=results))
    assert first.startswith("The int8 ONNX engine")
    assert second.startswith("The int8 TFLite engine")


def test_a_slower_and_equally_large_engine_is_called_so() -> None:
    data = make_report_data()
    row = data.benchmark.rows[2]
    versus = change_speed(0.5, None, size_ratio=1.0)
    sentence = summarize_engine(replace(row, versus_parent=versus), "mel")
    assert "is 2.00× slower than, and practically as large as, its parent" in sentence


def test_layers_in_higher_precision_are_told_by_it() -> None:
    facts = Quantization(weight_bits=8, float_layers=3)
    assert describe_quantization(facts) == "8-bit weights, 3 layers in float32"
    assert describe_quantization(replace(facts, float16_layers=2)) == (
        "8-bit weights, 2 layers in float16, 1 layer in float32"
    )
    assert describe_quantization(Quantization(float_layers=0)) == "no layer in float"


def test_an_emulated_engine_is_claimed_to_have_no_speed() -> None:
    benchmark = make_report_data(targets=("keras:float32", "tensorrt:int8")).benchmark
    (sentence,) = summarize_run(benchmark)
    assert sentence.startswith(
        "The int8 TensorRT engine was emulated by ONNX Runtime on the CPU, so its latency "
        "is unknown; it is 3.78× smaller than its parent, float32 Keras, which has another runtime "
        "(there is no float32 TensorRT); as emulated, "
    )
    assert not re.search(r"\d ms|faster|slower|as fast", sentence)


def test_an_emulated_engine_is_never_the_fastest() -> None:
    """Its 0.0777 ms are those of another program."""
    emulated = make_report_data(targets=(*TARGETS, "tensorrt:int8")).benchmark
    assert order_by_importance(emulated)[0].target == "tflite:int8"
    assert order_by_importance(emulated)[2].target == "tensorrt:int8"
    floats = [row for row in emulated.rows if row.precision == "float32"]
    stood_in = replace(floats[0], execution=emulated.rows[-1].execution)
    (sentence,) = summarize_run(replace(emulated, rows=(*floats[1:], stood_in)))
    assert "the fastest that ran, float32 TFLite, has a latency of 0.526 ms" in sentence


def test_a_speed_over_another_runtime_is_told_as_one() -> None:
    data = make_report_data(targets=("keras:float32", "tflite:int8"))
    (sentence,) = summarize_run(data.benchmark)
    assert "than its parent, float32 Keras, which has another runtime" in sentence
    assert "there is no float32 TFLite" in sentence


def test_a_speedup_that_its_interval_does_not_show_is_not_claimed() -> None:
    assert describe_speed(change_speed(1.2, (0.9, 1.6))) == (
        f"not shown to be faster or slower (1.20×, 95{NBSP}% interval 0.900–1.60)", "than"
    )  # fmt: skip
    slower = change_speed(0.5, (0.4, 0.8))
    assert compare_speed(slower) == f"2.00× slower (95{NBSP}% interval 1.25–2.50) than"
    assert compare_speed(change_speed(1.01, None)) == "practically as fast as"
    equal = change_speed(1.0, (0.99, 1.01))
    assert compare_speed(equal) == f"practically as fast (95{NBSP}% interval 0.990–1.01) as"


def test_the_lead_tells_how_many_of_the_critical_class_are_found() -> None:
    benchmark = make_report_data(answers="blind").benchmark
    row = order_by_importance(benchmark)[0]
    assert describe_critical(benchmark, row) == (
        "The engine finds 0 of 22 images of melanoma by the highest probability (0.0 %, 95 % "
        "interval 0.0–28.5 %); its parent finds 0."
    )
