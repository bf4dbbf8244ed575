"""A converted engine passes if it answers as its parent does; what is broken is named."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from lesiontk.backends import list_targets, parse_target
from lesiontk.evaluate.verification import (
    UNEXPLAINED,
    Check,
    Verification,
    classify_precision,
    verify_outputs,
)
from lesiontk.recipe import VerifyRule

RULE = VerifyRule()
PRECISIONS = ("float32", "float16", "int8", "dynamic_int8", "int16x8")


@dataclass(frozen=True)
class Shares:
    """What an engine file is made of; by default all that any precision asks for."""

    int8_weight_share: float = 1.0
    float16_weight_share: float = 1.0
    integer_operator_share: float = 1.0
    saturated_biases: Mapping[str, Sequence[int]] = field(default_factory=dict)


N, CLASSES = 200, 7
Probabilities = NDArray[np.float32]


def soft(logits: NDArray[Any]) -> Probabilities:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return (powers / powers.sum(axis=1, keepdims=True)).astype(np.float32)


LOGITS = np.random.default_rng(1).normal(0, 3, (N, CLASSES))
PARENT = soft(LOGITS)


def with_noise(scale: float) -> Probabilities:
    return soft(LOGITS + np.random.default_rng(2).normal(0, scale, LOGITS.shape))


def verify(child: Probabilities, precision: str, shares: Shares | None = None) -> Verification:
    structure = shares or Shares()
    return verify_outputs(
        PARENT, child, precision=precision, structure=structure, unexplained=(), rule=RULE
    )


def verify_rounded(said: Probabilities) -> Verification:
    """Verify an int8 engine without fault, whose model says `said` with int8's rounding."""
    return verify_outputs(
        PARENT,
        PARENT,
        precision="int8",
        structure=Shares(),
        unexplained=(),
        rule=RULE,
        rounded=(said, PARENT),
    )


def failed(verification: Verification) -> list[str]:
    return [check.name for check in verification.checks if not check.passed]


precisions = pytest.mark.parametrize("precision", PRECISIONS)


# ------------------------------------------------------------------------------ what passes


@precisions
def test_the_parent_itself_passes(precision: str) -> None:
    verification = verify(PARENT, precision)
    assert verification.passed
    assert failed(verification) == []
    assert verification.agreement is not None
    assert verification.n == verification.agreement.n == N
    assert verification.agreement.top1_agreement == 1.0


def test_rounding_passes_as_float_and_noise_passes_as_int8() -> None:
    assert verify(with_noise(1e-4), "float32").passed
    assert verify(with_noise(0.03), "float16").passed
    for precision in ("int8", "dynamic_int8", "int16x8"):
        assert verify(with_noise(0.1), precision).passed


def test_a_parent_that_is_constant_itself_excuses_its_child() -> None:
    parent = np.full((N, CLASSES), 1 / CLASSES, np.float32)
    received = verify_outputs(
        parent,
        parent,
        precision="float32",
        structure=Shares(0, 0, 0),
        unexplained=(),
        rule=RULE,
    )
    assert received.passed


# ------------------------------------------------------------------------------ what fails


def test_noise_that_int8_may_have_is_too_much_for_float() -> None:
    """The twin of the tests above."""
    assert "mean probability drift" in failed(verify(with_noise(0.03), "float32"))
    assert "mean probability drift" in failed(verify(with_noise(0.1), "float16"))
    assert "mean probability drift" in failed(verify(with_noise(2), "int8"))


@precisions
def test_large_noise_fails(precision: str) -> None:
    assert set(failed(verify(with_noise(3), precision))) == {
        "top-1 agreement",
        "mean probability drift",
    }


@precisions
def test_one_answer_for_all_images_fails(precision: str) -> None:
    verification = verify(np.repeat(PARENT[:1], N, axis=0), precision)
    assert "constant output" in failed(verification)


def test_one_answer_fails_even_where_it_agrees() -> None:
    """A parent that nearly always says the same: agreement and drift see nothing."""
    parent = np.full((N, 2), [0.99, 0.01], np.float32)
    parent[0] = [0.985, 0.015]
    child = np.full((N, 2), [0.99, 0.01], np.float32)
    received = verify_outputs(
        parent, child, precision="float32", structure=Shares(), unexplained=(), rule=RULE
    )
    assert failed(received) == ["constant output"]


@precisions
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_one_number_that_is_not_finite_fails(precision: str, value: float) -> None:
    child = PARENT.copy()
    child[17, 3] = value
    verification = verify(child, precision)
    assert failed(verification) == ["share of finite outputs"]
    assert verification.checks[0].value == pytest.approx(1 - 1 / N)


@precisions
@pytest.mark.parametrize(
    "damage",
    [lambda p: p * 0, lambda p: p * 2, lambda p: p - 0.5, lambda p: np.log(p + 1e-6)],
    ids=["zero", "doubled", "negative", "logits"],
)
def test_outputs_that_are_no_probabilities_fail(precision: str, damage: Any) -> None:
    verification = verify(damage(PARENT), precision)
    assert not verification.passed
    assert "share of outputs that are probabilities" in failed(verification)


@precisions
def test_swapped_labels_fail(precision: str) -> None:
    verification = verify(PARENT[:, [1, 0, *range(2, CLASSES)]], precision)
    assert "top-1 agreement" in failed(verification)


@precisions
def test_images_in_another_order_fail(precision: str) -> None:
    assert "top-1 agreement" in failed(verify(PARENT[::-1], precision))


@pytest.mark.parametrize("precision", ["int8", "dynamic_int8", "int16x8"])
def test_an_int8_engine_with_float_weights_fails_though_its_answers_are_right(
    precision: str,
) -> None:
    for share in (0.0, 0.5):
        verification = verify(PARENT, precision, Shares(int8_weight_share=share))
        assert failed(verification) == ["share of int8 weights"]
    assert verify(PARENT, precision, Shares(int8_weight_share=0.95)).passed
    assert verify(PARENT, "float32", Shares(int8_weight_share=0.0)).passed


def test_a_float16_engine_with_wider_weights_fails() -> None:
    verification = verify(PARENT, "float16", Shares(float16_weight_share=0.5))
    assert failed(verification) == ["share of float16 weights"]
    assert verify(PARENT, "float32", Shares(float16_weight_share=0.0)).passed


def test_a_static_int8_engine_that_computes_in_float_fails() -> None:
    """Its weights are int8 in the file alone; a dynamic one does so by intent."""
    shares = Shares(integer_operator_share=0.1)
    for precision in ("int8", "int16x8"):
        assert failed(verify(PARENT, precision, shares)) == ["share of integer operators"]
    assert verify(PARENT, "dynamic_int8", shares).passed


@precisions
def test_an_operator_left_in_float_without_a_reason_fails_and_is_named(precision: str) -> None:
    left = ("CONV_2D -> a", "ADD -> b", "MUL -> c", "SUB -> d")
    for names, told in (
        (left[:1], "CONV_2D -> a"),
        (left, "CONV_2D -> a, ADD -> b, MUL -> c, ..."),
    ):
        verification = verify_outputs(
            PARENT,
            PARENT,
            precision=precision,
            structure=Shares(),
            unexplained=names,
            rule=RULE,
        )
        assert verification.passed is (precision not in ("int8", "int16x8"))
        expected = f"{UNEXPLAINED} is {len(names)} ({told}); expected at most 0"
        assert verification.describe_failures() == ("" if verification.passed else expected)


@precisions
def test_another_description_than_the_parents_fails(precision: str) -> None:
    received = verify_outputs(
        PARENT,
        PARENT,
        precision=precision,
        structure=Shares(),
        unexplained=(),
        rule=RULE,
        same_description=False,
    )
    assert failed(received) == ["parent's description"]


@precisions
def test_golden_pictures_are_judged_beside_the_others(precision: str) -> None:
    def verify_golden(child: Probabilities) -> Verification:
        return verify_outputs(
            PARENT,
            PARENT,
            precision=precision,
            structure=Shares(),
            unexplained=(),
            rule=RULE,
            golden=(PARENT[:16], child),
        )

    assert verify_golden(PARENT[:16]).passed
    golden = verify_golden(PARENT[:16]).golden_agreement
    assert golden is not None
    assert golden.n == 16
    assert failed(verify_golden(PARENT[16:32])) == ["golden mean drift"]
    assert failed(verify_golden(PARENT[:16] * np.float32(np.nan))) == ["share of finite outputs"]


def test_a_precision_without_thresholds_is_a_bug() -> None:
    with pytest.raises(ValueError, match="'int4' has no class of thresholds"):
        verify(PARENT, "int4")


def test_every_precision_of_every_back_end_has_thresholds() -> None:
    for target in list_targets():
        assert classify_precision(parse_target(target)[1]) in ("float", "half", "int8")


def test_the_rule_decides_how_near_is_near() -> None:
    child = with_noise(0.1)
    strict = VerifyRule(min_agreement_int8=1.0, max_mean_drift_int8=1e-6)
    received = verify_outputs(
        PARENT, child, precision="int8", structure=Shares(), unexplained=(), rule=strict
    )
    assert set(failed(received)) == {"top-1 agreement", "mean probability drift"}


# ------------------------------------------------------------------------------ checks


@pytest.mark.parametrize(
    ("value", "at_least", "passed"),
    [
        (0.9, True, True),
        (0.8999, True, False),
        (1.0, True, True),
        (0.9, False, True),
        (0.9001, False, False),
        (0.0, False, True),
    ],
)
def test_a_check_includes_its_bound(value: float, at_least: bool, passed: bool) -> None:
    assert Check("agreement", value, 0.9, at_least).passed is passed


def test_a_check_reads_as_a_sentence() -> None:
    assert str(Check("drift", 0.123456, 0.05, False)) == "drift is 0.1235; expected at most 0.05"
    assert str(Check("agreement", 0.5, 0.9, True)) == "agreement is 0.5; expected at least 0.9"


def test_a_verification_is_a_plain_document() -> None:
    document = json.loads(json.dumps(verify(with_noise(3), "int8").to_document(), allow_nan=False))
    assert document["passed"] is False
    assert document["n"] == N
    by_name = {check["name"]: check for check in document["checks"]}
    assert by_name["top-1 agreement"]["passed"] is False
    assert by_name["share of int8 weights"]["passed"] is True


def test_an_engine_says_what_its_model_says_with_its_rounding() -> None:
    right = verify_rounded(with_noise(0.001))
    assert right.passed
    assert right.to_document()["rounded_agreement"]["n"] == N
    assert "top-1 agreement with rounding" not in {c.name for c in verify(PARENT, "int8").checks}


def test_one_that_often_says_something_else_fails() -> None:
    said = PARENT.copy()
    said[:3] = PARENT[:3, ::-1]
    assert (said.argmax(axis=1) == PARENT.argmax(axis=1)).mean() < 0.99
    assert failed(verify_rounded(said)) == ["top-1 agreement with rounding"]
