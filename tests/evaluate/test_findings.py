"""An engine that misses what matters, or answers one class, is called so, as its parent is."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from lesiontk.evaluate.bootstrap import evaluate_predictions
from lesiontk.evaluate.evaluation import EngineEvaluation
from lesiontk.evaluate.findings import (
    describe_evaluation,
    explain_uninformative,
    read_critical_recall,
)
from lesiontk.evaluate.operating_point import OperatingPoint, evaluate_operating_point

LABELS = ("benign", "malignant")


def judge(
    truth: list[int], answers: list[int], sure: list[float] | None = None
) -> EngineEvaluation:
    """An evaluation; `sure` are the probabilities of the answers."""
    rows = np.array(sure or [0.9] * len(answers), np.float32)
    probabilities = np.stack([1 - rows, 1 - rows], axis=1)
    probabilities[np.arange(len(answers)), answers] = rows
    groups = [f"lesion-{row:03d}" for row in range(len(truth))]
    point = OperatingPoint("default", 0.5, ("malignant",))
    return EngineEvaluation(
        **evaluate_predictions(truth, probabilities, LABELS, groups, resamples=100).field_values(),
        target="tflite:int8",
        critical="malignant",
        operating_point=evaluate_operating_point(
            point, truth, probabilities, LABELS, groups, resamples=100
        ),
    )


def cautions_of(evaluation: EngineEvaluation) -> tuple[str, ...]:
    return read_critical_recall(evaluation, LABELS, "malignant", 0.95).list_cautions()


TRUTH = [1] * 12 + [0] * 40


def test_one_of_twelve_is_told_with_its_interval_and_reasons() -> None:
    evaluation = judge(TRUTH, [1] + [0] * 11 + [1] * 3 + [0] * 37)
    assert describe_evaluation(evaluation)[-1].startswith(
        "tflite:int8 finds 1 of 12 images of malignant by the highest probability (8.3 %, 95 % "
        "interval 0.0–38.5 %)"
    )
    missed, chance = cautions_of(evaluation)
    assert missed == "it misses more than it finds"
    assert "not shown to be better than chance" in chance
    assert "7.5 % of the other images" in chance


def test_eight_of_twelve_are_too_few_to_say() -> None:
    (caution,) = cautions_of(judge(TRUTH, [1] * 8 + [0] * 4 + [0] * 40))
    assert caution.startswith("12 images are too few")


def test_five_of_twelve_are_too_few_to_say_that_most_are_missed() -> None:
    (caution,) = cautions_of(judge(TRUTH, [1] * 5 + [0] * 7 + [0] * 40))
    assert caution == ("it misses more than it finds, though 12 images are too few to show this")


def test_one_that_finds_nearly_all_has_no_caution() -> None:
    """The twin."""
    truth = [1] * 60 + [0] * 100
    evaluation = judge(truth, [1] * 54 + [0] * 6 + [1] * 10 + [0] * 90)
    assert cautions_of(evaluation) == ()
    assert describe_evaluation(evaluation) == []


def test_one_that_calls_everything_critical_is_no_better_than_chance() -> None:
    evaluation = judge(TRUTH, [1] * 52)
    assert cautions_of(evaluation) == (
        "this is not shown to be better than chance, because it predicts the same class for 100.0 "
        "% of the other images",
    )
    assert (
        "predicts malignant for 52 of 52 images, of which 12 show it"
        in describe_evaluation(evaluation)[0]
    )


def test_no_image_of_the_critical_class_is_said() -> None:
    evaluation = judge([0] * 30, [0] * 30)
    absent, sentence = describe_evaluation(evaluation)
    assert absent == (
        "no image shows malignant: balanced accuracy and the other means over classes are of 1 of "
        "2 classes"
    )
    assert "was tested on no image of malignant" in sentence
    assert "is unknown" in sentence


@pytest.mark.parametrize("others", [0, 1])
def test_one_answer_in_99_of_100_images_is_one_answer(others: int) -> None:
    truth = [0, 1] * 50
    clauses = explain_uninformative(judge(truth, [0] * (100 - others) + [1] * others), LABELS)
    assert clauses[0] == f"predicts benign for {100 - others} of 100 images, of which 50 show it"
    assert "macro AUC" in clauses[1]


def test_a_test_set_of_one_class_makes_no_engine_constant() -> None:
    """The twin: all answers are alike because all images are."""
    assert explain_uninformative(judge([0] * 30, [0] * 30), LABELS) == ()


def test_random_answers_are_not_better_than_chance_and_useful_ones_are() -> None:
    generator = np.random.default_rng(0)
    truth, sure = [0, 1] * 50, (0.5 + 0.4 * generator.random(100)).tolist()
    (clause,) = explain_uninformative(
        judge(truth, generator.integers(2, size=100).tolist(), sure), LABELS
    )
    assert clause.startswith("is not shown to rank classes better than chance: macro AUC 0.")
    assert explain_uninformative(judge(truth, truth, sure), LABELS) == ()


def test_one_that_ranks_the_wrong_way_round_is_worse_than_chance() -> None:
    truth = [0, 1] * 50
    (clause,) = explain_uninformative(judge(truth, [1 - label for label in truth]), LABELS)
    assert clause.startswith("ranks classes worse than chance: macro AUC 0.000 (0.000")


def test_an_emulated_engine_is_told_by_its_emulator() -> None:
    truth = [0, 1] * 50
    evaluation = replace(judge(truth, truth), emulated_by="ONNX Runtime on the CPU")
    assert describe_evaluation(evaluation) == [
        "tflite:int8 was emulated by ONNX Runtime on the CPU: its scores are those of the graph"
    ]
