"""The report shows what each step of a compression changed, and what int8 does to each layer."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest

from lesiontk.calibration.stability import DrawScores, OwnDraw, Stability
from lesiontk.compress.layers import LayerWidths
from lesiontk.compress.prune_budget import LatencyGoal
from lesiontk.compress.sensitivity import LayerSensitivity, Sensitivity, Trial
from lesiontk.records import EngineFootprint, Footprint, RecallConstraint
from lesiontk.report.drawing import style_of_engines
from lesiontk.report.sensitivity_plot import plot_sensitivity
from lesiontk.report.wording import describe_best
from lesiontk.stages.load_weights import LoadedWeights
from lesiontk.stages.prune import Pruning, PruningRound
from lesiontk.stages.qat import LearnedRounding
from lesiontk.stages.resize import Resizing
from lesiontk.stages.sparsify import Sparsity
from lesiontk.technique import describe_step
from tests.model_facts import SCORES, make_facts, make_step
from tests.report.page import read, read_with_figures
from tests.report.sample_report import make_report_data

SMALLER = Footprint(
    engine="tflite:float32",
    n=100,
    before=EngineFootprint(1_600_000, 1_500_000, 0.5),
    after=EngineFootprint(1_600_000, 500_000, 0.49),
)
FASTER = Footprint(
    engine="tflite:int8",
    n=100,
    before=EngineFootprint(1_600_000, 1_500_000, 4.0),
    after=EngineFootprint(400_000, 300_000, 1.9),
)
ROUND = PruningRound(
    removed=3, wanted=0.5, kept=None, next=None, validation_before=SCORES, validation_after=SCORES
)
PRUNED = Pruning(
    criterion="taylor",
    multiple=8,
    macs=(200, 50),
    parameters=(1000, 300),
    rounds=(ROUND, ROUND),
    latency=LatencyGoal("tflite:int8", 0.5),
)
HALF = Sparsity("2:4", 0.5, ())
LEARNED = LearnedRounding(
    scheme="tflite", rounded_tensors=11, keeps=("zeros",), validation_before=SCORES
)
WORSE = replace(SCORES, metrics={**SCORES.metrics, "balanced_accuracy": 0.7})
ANCESTORS = (
    make_step("train"),
    make_step("prune", PRUNED, validation=WORSE, footprint=FASTER),
    make_step("sparsify", HALF, footprint=SMALLER),
)
COMPRESSED: dict[str, Any] = {
    "model": make_facts("qat", LEARNED, epochs=2, best_epoch=2, history=ANCESTORS),
    "ancestors": ANCESTORS,
}
WIDTHS = tuple(
    LayerWidths(layer=name, kind="Conv2D", channels=before, kept=after, macs=9, macs_kept=5)
    for name, before, after in (("a", 32, 8), ("b", 64, 16))
)
ROWS = (
    LayerSensitivity("block3/Relu", 0.12, 0.75, -0.1),
    LayerSensitivity("pooling<b>", 0.0, 1.0, 0.0),
)
FOUND = Sensitivity(
    backend="tensorrt",
    layers=2,
    images=64,
    validation=1503,
    kept=("block3/Relu",),
    kept_in="float16",
    trials=(Trial((), ()), Trial(("block3/Relu",), ())),
    untried=None,
    outcome="the gate is met on validation (n = 1503) with 1 of 2 layers in float16",
)


def searched(found: Sensitivity) -> dict[str, Any]:
    return {"sensitivities": {"tensorrt": found}, "sensitive_layers": {"tensorrt": ROWS}}


def test_the_last_step_is_not_told_of_as_the_first_training() -> None:
    text = read(make_report_data(**COMPRESSED)).text
    assert "Epochs of the last step" in text
    assert "2 of at most" not in text
    assert "Optimizer of the first training" in text
    assert "of the last step" not in read(make_report_data()).text


def test_each_step_is_a_row_with_what_it_changed() -> None:
    table = read(make_report_data(**COMPRESSED)).tables["Steps of the compression"]
    assert [row[0] for row in table[1:]] == ["train", "prune", "sparsify", "qat"]
    assert [row[4] for row in table[1:]] == [
        "71.2\N{NO-BREAK SPACE}%",
        "70.0\N{NO-BREAK SPACE}%",
        "71.2\N{NO-BREAK SPACE}%",
        "71.2\N{NO-BREAK SPACE}%",
    ]
    assert table[2][1].startswith(
        "25.0\N{NO-BREAK SPACE}% of the operations and 30.0\N{NO-BREAK SPACE}%"
    )
    assert table[2][1].endswith("measured: 1.90 ms, before 4.00 ms (n = 100)")
    assert (
        table[3][1]
        == "50.0\N{NO-BREAK SPACE}% of the weights of the compressed kernels are zero (2:4)"
    )
    assert table[4][1].endswith("in 11 tensors; zeros are preserved")


def test_a_latency_that_was_asked_for_is_told_with_the_one_measured() -> None:
    step = make_step("prune", PRUNED)
    asked = describe_step(step).replace("\N{NO-BREAK SPACE}", " ")
    assert asked.endswith("in 2 rounds; 50.0 % of the latency on int8 TFLite was the budget")
    slower = replace(FASTER, after=replace(FASTER.after, median_ms=2.2))
    told = describe_step(replace(step, footprint=slower)).replace("\N{NO-BREAK SPACE}", " ")
    assert (
        "and 55.0 % measured: 2.20 ms, before 4.00 ms (n = 100), which exceeds the budget" in told
    )
    assert "exceeds" not in describe_step(replace(step, footprint=FASTER))


def test_layers_that_a_pattern_does_not_fit_are_named() -> None:
    told = describe_step(make_step("sparsify", Sparsity("2:4", 0.4, ("conv2", "conv3"))))
    assert told.endswith(
        "dense, because their inputs are not a multiple of the pattern's: conv2, conv3"
    )


def test_size_and_latency_are_shown_of_each_step_that_was_measured() -> None:
    table = read(make_report_data(**COMPRESSED)).tables["Sizes and latencies before and after"]
    assert [row[:2] for row in table[1:]] == [
        ["prune", "tflite:int8"], ["sparsify", "tflite:float32"]
    ]  # fmt: skip
    assert table[2][-2:] == ["0.500 ms", "0.490 ms"]


def test_widths_are_drawn_after_a_pruning() -> None:
    page = read_with_figures(make_report_data(**COMPRESSED, widths=WIDTHS))
    assert any("25% of 96 channels remain" in text for text in page.values("alt"))


def test_a_model_that_was_only_trained_has_no_such_section() -> None:
    page = read(make_report_data())
    assert "#compression" not in page.values("href")
    assert "Steps of the compression" not in page.tables


def test_sensitivities_are_shown_with_what_stays_in_float() -> None:
    page = read_with_figures(make_report_data(**searched(FOUND)))
    table = page.tables["Sensitivity of each layer on tensorrt"]
    assert table[1] == ["block3/Relu", "0.120", "75.0\N{NO-BREAK SPACE}%", "−0.100", "float16"]
    assert table[2][0] == "pooling<b>"
    assert table[2][-1] == "int8"
    assert f"2 sets of layers were tried: {FOUND.outcome} (hollow bars)." in page.text
    told = "block3/Relu: 0.120, and balanced accuracy changes by −0.100."
    assert any(text.endswith(told) for text in page.values("alt"))


def test_the_picture_depends_on_the_change_of_balanced_accuracy_too() -> None:
    style = style_of_engines(["tflite:mixed"])["tflite:mixed"]
    harmless = [ROWS[0], replace(ROWS[1], balanced_accuracy=0.0)]
    harmful = [ROWS[0], replace(ROWS[1], balanced_accuracy=-0.05)]
    pictures = [plot_sensitivity(rows, (), "tflite", style) for rows in (harmless, harmful)]
    assert pictures[0].alternative == pictures[1].alternative
    assert pictures[0].content != pictures[1].content


def test_where_the_gate_cannot_be_met_no_layer_is_said_to_stay_in_float() -> None:
    unmet = replace(FOUND, kept=None, outcome="the gate is not met")
    page = read_with_figures(make_report_data(**searched(unmet)))
    table = page.tables["Sensitivity of each layer on tensorrt"]
    assert [row[-1] for row in table[1:]] == ["–", "–"]
    assert "the gate is not met (so there is no mixed engine)." in page.text
    assert any("block3/Relu: 0.120" in text for text in page.values("alt"))


def test_stability_under_other_draws_is_shown() -> None:
    found = Stability(
        target="tflite:int8",
        draws=3,
        images=210,
        validation=1503,
        least_agreement=0.98,
        own=OwnDraw(7, 0.7, 0.6),
        spread=DrawScores(0.004, 0.01),
    )
    page = read(make_report_data(stabilities={"tflite:int8": found}))
    row = page.tables["Engines from other calibration draws"][1]
    assert row[:3] == ["tflite:int8", "3", "210"]
    assert "0.4" in row[5]
    assert "Not measured: each draw" not in page.text


def test_without_stability_the_report_says_how_to_have_it() -> None:
    page = read(make_report_data())
    assert "Engines from other calibration draws" not in page.tables
    assert "Not measured: each draw requires a further conversion" in page.text
    assert "Not measured: each draw" not in read(make_report_data(**COMPRESSED)).text


def test_smaller_images_are_told_with_what_they_save() -> None:
    step = make_step("resize", Resizing((112, 80), (100, 51)))
    told = describe_step(step).replace("\N{NO-BREAK SPACE}", " ")
    assert told == "80 px instead of 112: 51.0 % of the operations remain"


def test_a_training_elsewhere_is_told_as_its_trainer_tells_it() -> None:
    trained = {"script": "mine.py", "teachers": ["a", "b"], "epochs": 9}
    loaded = LoadedWeights.from_document({"file": "better.keras", "trained_by": trained})
    told = describe_step(make_step("load_weights", loaded))
    assert told == (
        "trained further elsewhere (better.keras; script mine.py; teachers a, b; epochs 9)"
    )


@pytest.mark.parametrize(
    ("constraint", "told"),
    [
        (None, "balanced accuracy$"),
        (
            RecallConstraint({"mel": 0.6}, {}),
            "at no less melanoma recall than the 0.600 of the trained network,$",
        ),
        (
            RecallConstraint({"mel": 0.6, "nv": 0.9}, {"nv": 0.25}),
            "trained network and, .* of another class, for which biases were raised: nv by 0.25,$",
        ),
    ],
)
def test_it_is_told_how_the_best_epoch_was_chosen(
    constraint: RecallConstraint | None, told: str
) -> None:
    assert re.search(told, describe_best(make_facts("prune", recall_constraint=constraint)))
