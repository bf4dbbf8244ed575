"""What follows from verdicts: a warning, or exit code 1 with the verdict in words."""

from __future__ import annotations

import logging

import pytest

from lesiontk.bench.judging import require_gates
from lesiontk.errors import GateFailedError
from lesiontk.evaluate.verdict import Comparand, GateVerdict, Outcome, Unresolved


def make_verdict(engine: str, outcome: Outcome, comparand: Comparand) -> GateVerdict:
    return GateVerdict(
        engine=engine,
        gate="accuracy >= parent - 0.1 @ 0.95",
        metric="accuracy",
        comparand=comparand,
        outcome=outcome,
        limit=0.1,
        parent="tflite:float32",
        measured=0.2,
        low=0.15,
        high=0.3,
        confidence=0.95,
        reason="12 lesions are too few" if outcome is Outcome.NOT_SHOWN else "",
    )


def check(unresolved: str, *verdicts: GateVerdict) -> None:
    require_gates(verdicts, Unresolved(unresolved))


@pytest.mark.parametrize(
    ("engines", "comparand", "advice"),
    [
        (["tflite:int8"], Comparand.LOSS, "Calibrate on more images"),
        (
            ["keras:float32", "tflite:int8"],
            Comparand.LOSS,
            "that of compression, not of quantization: compress less",
        ),
        (["tflite:int8"], Comparand.DEVICE, "A smaller network"),
        (["tflite:int8"], Comparand.VALUE, "Improve the network"),
    ],
)
def test_a_gate_that_fails_says_so_in_words_and_where_to_look(
    engines: list[str], comparand: Comparand, advice: str
) -> None:
    failed = [make_verdict(engine, Outcome.FAILED, comparand) for engine in engines]
    with pytest.raises(GateFailedError, match=rf"@ 0.95` failed: .* is 0\.2 .*{advice}") as caught:
        check("warn", *failed)
    assert caught.value.exit_code == 1
    assert all(engine in str(caught.value) for engine in engines)


def test_what_is_not_shown_is_a_warning_or_a_failure_as_the_recipe_says(
    caplog: pytest.LogCaptureFixture,
) -> None:
    verdict = make_verdict("tflite:int8", Outcome.NOT_SHOWN, Comparand.LOSS)
    with caplog.at_level(logging.WARNING):
        check("warn", verdict)
    assert "not shown: 12 lesions are too few" in caplog.text
    with pytest.raises(GateFailedError, match=r"not shown: 12 lesions .*lesiontk gate power"):
        check("fail", verdict)


def test_gates_that_passed_are_silent(caplog: pytest.LogCaptureFixture) -> None:
    check("fail", make_verdict("tflite:int8", Outcome.PASSED, Comparand.LOSS))
    check("fail")
    assert caplog.text == ""
