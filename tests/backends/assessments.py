"""What engine files carry of their evaluation."""

from __future__ import annotations

from lesiontk.evaluate.assessment import Assessment, TestResult
from lesiontk.evaluate.bootstrap import Estimate
from lesiontk.evaluate.operating_point import OperatingPoint, ValidationOutcome

POINT = OperatingPoint(
    "youden", 0.1234567890123, ("akiec", "bcc", "mel"), ValidationOutcome(100, 20, 0.9, 0.8)
)


RESULT = TestResult(
    1504,
    1116,
    "7c" * 32,
    0.95,
    {"accuracy": Estimate(0.8, 0.7, 0.9), "recall[df]": Estimate(None, None, None)},
    {"sensitivity": Estimate(0.9, 0.8, 1.0)},
    images={"akiec": 40, "bcc": 80, "df": 18, "mel": 170},
)


KNOWN = Assessment(POINT, 1.5, RESULT)
