"""Gates: what is shown, what is not, and what no gate may claim."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lesiontk.errors import DataError, UsageError
from lesiontk.evaluate.device_gate import DeviceFigures, bound_quantile
from lesiontk.evaluate.gate import GateInput, judge_engines
from lesiontk.evaluate.holm import adjust_holm
from lesiontk.evaluate.loss_bounds import Points, Predictions
from lesiontk.evaluate.operating_point import (
    OperatingPoint,
    freeze_operating_point,
    match_specificity,
)
from lesiontk.evaluate.verdict import (
    GateVerdict,
    Outcome,
    Unresolved,
    describe_outcomes,
    sort_verdicts,
)
from lesiontk.recipe import EvaluateRule

LABELS = ("nv", "mel")
STATISTICS = EvaluateRule(resamples=400)
MEL = "recall[mel] >= parent - 0.05 @ 0.95"


def answer(y_true: npt.NDArray[np.int64], wrong: npt.NDArray[np.bool_]) -> npt.NDArray[np.float32]:
    """Return probabilities [N, 2] that are right but for the images `wrong`."""
    called = np.where(wrong, 1 - y_true, y_true)
    return np.where(np.arange(2) == called[:, None], 0.9, 0.1).astype(np.float32)


def make_answers(
    mel: int, lost: int = 0, gained: int = 0, nv: int = 60, images_each: int = 1
) -> Predictions:
    """Return two engines on `mel` melanomas: the child loses some of the parent's, finds others."""
    y_true = np.repeat([1, 0], [mel * images_each, nv]).astype(np.int64)
    row = np.arange(len(y_true))
    before = (row >= lost * images_each) & (row < (lost + gained) * images_each)
    after = row < lost * images_each
    lesion = np.where(row < mel * images_each, row // images_each, row)
    return Predictions(
        y_true=y_true,
        child=answer(y_true, after),
        labels=LABELS,
        groups=[f"lesion {number}" for number in lesion],
        positive=("mel",),
        parent=answer(y_true, before),
    )


def judge(gate: str, answers: Predictions) -> GateVerdict:
    (verdict,) = judge_engines(
        [GateInput("tflite:int8", "tflite:float32", answers)], [gate], STATISTICS
    )
    return verdict


# ------------------------------------------------------------------------------ three verdicts


def test_two_of_twelve_melanomas_lost_pass_no_limit_of_one_point() -> None:
    """The fault: harm had to be proven, and 17 % of the melanomas passed a limit of 1 %."""
    verdict = judge("recall[mel] >= parent - 0.01 @ 0.95", make_answers(12, lost=2))
    assert verdict.outcome is Outcome.NOT_SHOWN
    assert verdict.measured == pytest.approx(1 / 6)
    assert "beyond the limit" in verdict.reason


def test_twelve_melanomas_of_which_none_is_lost_show_no_small_loss() -> None:
    verdict = judge(MEL, make_answers(12))
    assert verdict.outcome is Outcome.NOT_SHOWN
    assert verdict.high == pytest.approx(1 - 0.05 ** (1 / 12), abs=1e-6)
    assert (verdict.measured, verdict.lesions, verdict.of) == (0, 12, "mel lesions")
    assert verdict.needed == 59  # the least n with 0.95 ** n <= 0.05
    assert "12 mel lesions are too few; about 59 suffice" in verdict.reason


def test_the_lesions_that_are_said_to_be_enough_are_enough_and_one_less_is_not() -> None:
    assert judge(MEL, make_answers(59)).passed
    assert judge(MEL, make_answers(58)).unresolved


def test_a_loss_that_is_shown_fails() -> None:
    verdict = judge(MEL, make_answers(60, lost=20))
    assert verdict.failed
    assert verdict.low is not None
    assert verdict.low > 0.05
    assert judge(MEL, make_answers(12, lost=11)).failed


def test_a_point_estimate_alone_never_passes_a_difference() -> None:
    with pytest.raises(UsageError, match="point estimate of a difference is unreliable"):
        judge("recall[mel] >= parent - 0.05", make_answers(60))


@settings(max_examples=25)
@given(st.integers(2, 80), st.integers(0, 80), st.integers(0, 80))
def test_a_verdict_says_what_its_bounds_say(mel: int, lost: int, gained: int) -> None:
    lost = min(lost, mel)
    verdict = judge(MEL, make_answers(mel, lost, min(gained, mel - lost)))
    assert verdict.low is not None
    assert verdict.high is not None
    assert verdict.passed == (verdict.high <= 0.05 + 1e-9)
    assert verdict.failed == (verdict.low > 0.05)
    assert verdict.low <= (verdict.measured or 0) <= verdict.high


def test_pictures_of_one_lesion_count_as_one() -> None:
    """Sixty pictures of twelve melanomas show what twelve melanomas do."""
    apart, together = make_answers(60), make_answers(12, images_each=5)
    assert judge(MEL, apart).passed
    verdict = judge(MEL, together)
    assert verdict.unresolved
    assert verdict.lesions == 12


def test_a_passed_gate_is_right_as_often_as_it_says() -> None:
    """Engines that lose exactly the margin pass in at most 5 % of the draws (here of 200)."""
    generator = np.random.default_rng(5)
    passed = 0
    for _ in range(200):
        passed += judge(
            "recall[mel] >= parent - 0.2 @ 0.95",
            make_answers(40, lost=int(generator.binomial(40, 0.2)), nv=4),
        ).passed
    assert passed <= 20  # 5 % of 200, and three deviations of it


# ------------------------------------------------------------------------------ other metrics


def test_engines_that_answer_alike_pass_on_enough_lesions_and_not_on_few() -> None:
    gates = ["macro_auc >= parent - 0.05 @ 0.95", "log_loss <= parent + 0.1 @ 0.95"]
    many = judge_engines([GateInput("e", None, make_answers(300, nv=300))], gates, STATISTICS)
    few = judge_engines([GateInput("e", None, make_answers(5, nv=5))], gates, STATISTICS)
    assert {v.outcome for v in many} == {Outcome.PASSED}
    assert {v.outcome for v in few} == {Outcome.NOT_SHOWN}
    assert all((v.measured, v.low) != (v.high, v.high) for v in (*many, *few))


@pytest.mark.parametrize("lesions", [2, 5, 10, 40])
def test_a_rare_loss_that_few_lesions_do_not_show_passes_no_gate(lesions: int) -> None:
    """One lesion in 20 loses a nat, so that the loss is the margin: most small draws have none."""
    generator = np.random.default_rng(lesions)
    y_true = np.arange(lesions) % 2
    passed = 0
    for draw in range(60):
        loss = (generator.random(lesions) < 0.05) + 1e-3 * generator.standard_normal(lesions)
        parent, child = (
            np.where(np.arange(2) == y_true[:, None], right[:, None], 1 - right[:, None])
            for right in (np.full(lesions, 0.8), 0.8 * np.exp(-loss))
        )
        groups = [f"lesion {row}" for row in range(lesions)]
        answers = Predictions(y_true, child, LABELS, groups, ("mel",), parent)
        statistics = EvaluateRule(resamples=100, seed=draw)
        (verdict,) = judge_engines(
            [GateInput("e", None, answers)], ["log_loss <= parent + 0.05 @ 0.95"], statistics
        )
        passed += verdict.passed
    assert passed <= 9  # 5 % of 60, and three deviations of it


@pytest.mark.parametrize("gate", ["macro_auc >= parent - 0.05 @ 0.95", "macro_auc >= 0.5 @ 0.95"])
def test_rounding_that_differs_shows_no_more_than_answers_that_are_equal(gate: str) -> None:
    same = make_answers(5, nv=5)
    shift = 1e-4 * np.arange(10, dtype=np.float32)
    moved = replace(same, child=same.child + np.stack([-shift, shift], axis=1))
    for answers in (same, moved):
        verdict = judge(gate, answers)
        assert verdict.unresolved == ("parent" in gate)
        assert verdict.method.endswith("cost of unseen lesions assumed")
        assert verdict.low is not None
        assert verdict.high is not None
        assert -1 <= verdict.low <= verdict.high <= 1
        assert "-0" not in (f"{verdict.low:g}", f"{verdict.high:g}")


def test_a_bound_of_a_value_is_tested_at_its_confidence_and_measured_without() -> None:
    answers = make_answers(50, lost=10, nv=50)  # recall 0.80
    assert judge("recall[mel] >= 0.8", answers).passed
    assert judge("recall[mel] >= 0.81", answers).failed
    assert judge("recall[mel] >= 0.8 @ 0.95", answers).unresolved
    assert judge("recall[mel] >= 0.65 @ 0.95", answers).passed
    verdict = judge("recall[mel] >= 0.95 @ 0.95", answers)
    assert verdict.failed
    assert verdict.measured == pytest.approx(0.8)
    assert verdict.low is not None
    assert verdict.high is not None
    assert 0.6 < verdict.low < 0.8 < verdict.high < 0.95


def test_of_log_loss_less_is_better() -> None:
    answers = make_answers(60, lost=30)
    verdict = judge("log_loss <= parent + 0.05 @ 0.95", answers)
    assert verdict.failed
    assert (verdict.measured or 0) > 0
    better = replace(answers, child=answers.parent, parent=answers.child)
    assert judge("log_loss <= parent + 0.05 @ 0.95", better).passed


def test_sensitivity_is_compared_at_the_parents_specificity() -> None:
    """An engine that calls everything positive finds all melanomas, and passes no such gate."""
    generator = np.random.default_rng(1)
    y_true = np.repeat([1, 0], 200).astype(np.int64)

    def make(signal: float) -> npt.NDArray[np.float32]:
        score = 1 / (1 + np.exp(-generator.normal(signal * (2 * y_true - 1), 1)))
        return np.stack([1 - score, score], axis=1).astype(np.float32)

    parent, child = make(1.5), make(0.1)
    frozen = freeze_operating_point(y_true, parent, LABELS, ["mel"], "youden")
    matched = match_specificity(y_true, child, LABELS, frozen)
    assert matched is not None
    assert matched.validation is not None
    assert frozen.validation is not None
    assert matched.validation.specificity >= frozen.validation.specificity
    generous = OperatingPoint("given", 0.0, ("mel",))
    answers = Predictions(
        y_true, child, LABELS, [str(n) for n in range(400)], ("mel",), parent,
        Points(frozen, generous, matched),
    )  # fmt: skip
    assert judge("sensitivity[mel] >= parent - 0.05 @ 0.95", answers).passed
    assert judge("sensitivity_at_parent_specificity[mel] >= parent - 0.05 @ 0.95", answers).failed
    assert judge("specificity[mel] >= parent - 0.05 @ 0.95", answers).failed
    unfrozen = replace(answers, points=Points())
    assert judge("auc[mel] >= parent - 0.05 @ 0.95", unfrozen).failed  # needs no threshold
    verdict = judge("sensitivity[mel] >= parent - 0.05 @ 0.95", unfrozen)
    assert verdict.reason == "no threshold was frozen on validation"


def test_a_point_that_was_frozen_on_other_images_is_not_matched() -> None:
    y_true = np.array([0, 0, 1, 1])
    found = answer(y_true, np.zeros(4, bool))
    assert match_specificity(y_true, found, LABELS, OperatingPoint("given", 0.5, ("mel",))) is None


# ------------------------------------------------------------------------------ what is missing


@pytest.mark.parametrize(
    ("gate", "change", "reason"),
    [
        (MEL, {"parent": None}, "the parent's predictions are not known"),
        ("p90_ms <= 20", {}, "the engine was not evaluated"),
    ],
)
def test_what_cannot_be_judged_is_not_shown_and_says_why(
    gate: str, change: dict[str, None], reason: str
) -> None:
    verdict = judge(gate, replace(make_answers(20), **change))
    assert (verdict.outcome, verdict.reason) == (Outcome.NOT_SHOWN, reason)


def test_a_class_without_images_is_not_shown() -> None:
    verdict = judge(MEL, make_answers(0))
    assert (verdict.outcome, verdict.reason) == (
        Outcome.NOT_SHOWN, "no image has the labels of recall[mel]",
    )  # fmt: skip


def test_an_engine_without_labels_is_judged_by_its_file_alone() -> None:
    figures = DeviceFigures([[10.0]] * 100, 4_000_000, 90_000_000)
    size, memory, accuracy = judge_engines(
        [GateInput("file", device=figures, not_measured="no labels")],
        ["size_mb <= 5", "peak_memory_mb <= 80", "accuracy >= 0.5"],
        STATISTICS,
    )
    assert (size.outcome, memory.outcome) == (Outcome.PASSED, Outcome.FAILED)
    assert (accuracy.outcome, accuracy.reason) == (Outcome.NOT_SHOWN, "no labels")


# ------------------------------------------------------------------------------ devices


def test_latency_is_judged_on_its_samples_and_not_on_their_quantile() -> None:
    samples = [*[10.0] * 88, *[30.0] * 12]  # the 90th percentile is 30, its lower bound 10
    figures = DeviceFigures([[sample] for sample in samples], 1, 1)

    def latency(gate: str, figures: DeviceFigures = figures) -> GateVerdict:
        (verdict,) = judge_engines([GateInput("e", device=figures)], [gate], STATISTICS)
        return verdict

    assert latency("p90_ms <= 20").unresolved
    assert latency("p90_ms <= 30").passed
    assert latency("p90_ms <= 9").failed
    assert latency("median_ms <= 10").passed
    emulated = replace(figures, not_timed="emulated")
    assert latency("p90_ms <= 30", emulated).reason == "emulated"
    assert latency("size_mb <= 1", emulated).passed


def test_samples_of_one_round_decide_no_more_than_the_round() -> None:
    """Half of the rounds are slow: 100 samples in each say no more than one."""
    rounds = [[10.0] * 100, [30.0] * 100] * 5
    (verdict,) = judge_engines(
        [GateInput("e", device=DeviceFigures(rounds, 1, 1))], ["median_ms <= 20"], STATISTICS
    )
    assert (verdict.low, verdict.high) == (10.0, 30.0)
    assert verdict.unresolved
    assert verdict.method == (
        "the wider of a bootstrap over 10 rounds and order statistics of 1000 samples"
    )
    calm = DeviceFigures([[10.0] * 100] * 10, 1, 1)
    (verdict,) = judge_engines([GateInput("e", device=calm)], ["median_ms <= 20"], STATISTICS)
    assert verdict.passed


def test_few_samples_in_rounds_pass_no_gate_on_p90() -> None:
    """All of ten samples lie below the true p90 in 35 % of runs, and so do all their resamples."""

    def judge(rounds: int) -> GateVerdict:
        figures = DeviceFigures([[4.0, 4.9]] * rounds, 1, 1)
        (verdict,) = judge_engines([GateInput("e", device=figures)], ["p90_ms <= 5"], STATISTICS)
        return verdict

    assert (judge(5).outcome, judge(5).high) == (Outcome.NOT_SHOWN, None)
    assert judge(14).high is None  # 28 samples
    assert (judge(15).outcome, judge(15).high) == (Outcome.PASSED, 4.9)


def test_a_gate_on_p90_that_is_not_met_passes_no_more_often_than_stated() -> None:
    """Twenty rounds of two exponential latencies, whose true p90 is just above the limit."""
    generator = np.random.default_rng(0)
    scale = 5.0 / np.log(10.0) * 1.0001
    passed = 0
    for _ in range(200):
        figures = DeviceFigures(generator.exponential(scale, (20, 2)).tolist(), 1, 1)
        (verdict,) = judge_engines([GateInput("e", device=figures)], ["p90_ms <= 5"], STATISTICS)
        passed += verdict.passed
    assert passed <= 16  # 5 % of 200, and two standard deviations


def test_order_statistics_bound_a_quantile() -> None:
    """100 samples: the 95 % upper bound of the 90th percentile is the 96th smallest."""
    low, high = bound_quantile(list(range(1, 101)), 0.9, 0.95)
    assert (low, high) == (85, 96)
    assert bound_quantile(list(range(1, 29)), 0.9, 0.95)[1] is None
    assert bound_quantile(list(range(1, 30)), 0.9, 0.95)[1] == 29


# ------------------------------------------------------------------------------ several tests


def test_holm_multiplies_the_smallest_by_their_number() -> None:
    assert adjust_holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert adjust_holm([0.5, 0.9]) == [1.0, 1.0]
    assert adjust_holm([]) == []


@given(st.lists(st.floats(1e-6, 1), min_size=1, max_size=9))
def test_holm_keeps_the_order_and_is_no_laxer_than_each_alone(p_values: list[float]) -> None:
    adjusted = adjust_holm(p_values)
    assert all(a >= p for a, p in zip(adjusted, p_values, strict=True))
    order = np.argsort(p_values, kind="stable")
    assert list(np.array(adjusted)[order]) == sorted(adjusted)


def test_engines_judged_together_are_adjusted_together() -> None:
    """A gate that passes alone by little does not pass among twenty engines."""
    answers = make_answers(62)
    assert judge(MEL, answers).passed
    judged = [GateInput(f"engine {n}", "parent", answers) for n in range(20)]
    verdicts = judge_engines(judged, [MEL], STATISTICS)
    assert {verdict.outcome for verdict in verdicts} == {Outcome.NOT_SHOWN}
    assert verdicts[0].tests == 20
    assert "alone it would pass" in verdicts[0].reason
    assert verdicts[0].needed == 117  # the least n with 0.95 ** n <= 0.05 / 20


# ------------------------------------------------------------------------------ records


def test_a_verdict_survives_being_written() -> None:
    for answers in (make_answers(12), make_answers(99), make_answers(60, lost=20)):
        verdict = judge(MEL, answers)
        assert GateVerdict.from_document(verdict.to_document()) == verdict
    document = {**verdict.to_document(), "passed": True}
    with pytest.raises(DataError, match="GateVerdict cannot be read: passed is True"):
        GateVerdict.from_document(document)


def test_what_is_not_shown_blocks_only_where_it_must() -> None:
    passed, failed, open_ = (
        judge(MEL, a) for a in (make_answers(99), make_answers(60, lost=20), make_answers(12))
    )
    assert [v.blocks(Unresolved.WARN) for v in (passed, failed, open_)] == [False, True, False]
    assert [v.blocks(Unresolved.FAIL) for v in (passed, failed, open_)] == [False, True, True]
    assert sort_verdicts((passed, open_, failed)) == (failed, open_, passed)
    assert describe_outcomes([passed, open_, passed]) == "2 passed, 1 not shown"


def test_a_reason_belongs_to_what_is_not_shown() -> None:
    verdict = judge(MEL, make_answers(99))
    with pytest.raises(ValueError, match="expected a reason"):
        replace(verdict, reason="because")
