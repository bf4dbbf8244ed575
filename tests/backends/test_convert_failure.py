"""What a conversion says that did not pass: which key decides, and what may help."""

from __future__ import annotations

import numpy as np
import pytest

from lesiontk.backends.backend import EngineStructure
from lesiontk.evaluate.verification import Verification, verify_outputs
from lesiontk.recipe import VerifyRule
from lesiontk.stages.convert import _explain_failure

GOOD = np.eye(7, dtype=np.float32)[np.arange(70) % 7]
FLAT = np.full((4, 7), 1 / 7, np.float32)
INT8 = EngineStructure({"int8": 100}, {"int8": 10})


def verify(child: np.ndarray, golden: np.ndarray) -> Verification:
    return verify_outputs(
        GOOD,
        child,
        precision="int8",
        structure=INT8,
        unexplained=(),
        rule=VerifyRule(),
        golden=(GOOD[:4], golden),
    )


def test_where_drawn_pictures_alone_drift_the_key_that_decides_is_named() -> None:
    said = _explain_failure("tflite:int8", verify(GOOD, FLAT))
    assert "golden mean drift is 0.2449; expected at most 0.05" in said
    assert "try a higher verify.max_mean_drift_int8, if the drift is acceptable" in said
    assert "on validation the engine agrees" in said


def test_where_validation_differs_too_no_key_is_offered() -> None:
    said = _explain_failure("tflite:int8", verify(GOOD[::-1].copy(), FLAT))
    assert "top-1 agreement" in said
    assert "if the drift is acceptable" not in said


@pytest.mark.parametrize(("float_only", "share"), [(0, 0.25), (25, 0.5), (30, 10 / 10)])
def test_operators_without_an_integer_form_do_not_count(float_only: int, share: float) -> None:
    structure = EngineStructure({}, {"int8": 10, "float32": 30}, float_only=float_only)
    expected = share if float_only != 25 else 10 / 15
    assert structure.integer_operator_share == pytest.approx(expected)
