"""Is a converted engine still the model it was made from? Plain NumPy over two sets of outputs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lesiontk.evaluate.comparison import is_constant, measure_agreement
from lesiontk.evaluate.metrics import ROW_SUM_TOLERANCE
from lesiontk.recipe import VerifyRule

MIN_INT8_WEIGHTS = 0.9


@dataclass(frozen=True, slots=True)
class Check:
    """One measured value against its bound; `at_least` says on which side it must lie."""

    name: str
    value: float
    bound: float
    at_least: bool

    @property
    def passed(self) -> bool:
        """Whether the value lies on the right side of its bound."""
        return self.value >= self.bound if self.at_least else self.value <= self.bound

    def __str__(self) -> str:
        sign = "at least" if self.at_least else "at most"
        return f"{self.name} is {self.value:.4g}; expected {sign} {self.bound:.4g}"


@dataclass(frozen=True, slots=True)
class Verification:
    """Every check of one engine against its parent on n images."""

    n: int
    checks: tuple[Check, ...]
    agreement: Mapping[str, Any]

    @property
    def passed(self) -> bool:
        """Whether every check passed."""
        return all(check.passed for check in self.checks)

    def describe_failures(self) -> str:
        """Return the checks that failed, each with its value and bound."""
        return "; ".join(str(check) for check in self.checks if not check.passed)

    def to_json(self) -> dict[str, Any]:
        """Return plain documents."""
        checks = [{**asdict(check), "passed": check.passed} for check in self.checks]
        return {
            "n": self.n,
            "passed": self.passed,
            "checks": checks,
            "agreement": dict(self.agreement),
        }


def verify_outputs(
    parent: NDArray[np.float32],
    child: NDArray[np.float32],
    *,
    precision: str,
    int8_weight_share: float,
    rule: VerifyRule,
) -> Verification:
    """Compare probabilities float32 [N, C] of parent and child on the same images.

    An int8 engine must in truth hold int8 weights; no engine may give numbers that are not
    finite or no probabilities, or one answer for all images where its parent gives several.
    """
    finite = np.isfinite(child).all(axis=1)
    checks = [Check("share of finite outputs", float(finite.mean()), 1.0, at_least=True)]
    if finite.all():
        distance = np.abs(child.sum(axis=1, dtype=np.float64) - 1.0)
        valid = (child >= 0).all(axis=1) & (distance <= ROW_SUM_TOLERANCE)
        checks.append(
            Check(
                "share of outputs that are probabilities", float(valid.mean()), 1.0, at_least=True
            )
        )
    if not checks[-1].passed:
        return Verification(len(parent), tuple(checks), {})
    constant = is_constant(child) and not is_constant(parent)
    agreement = measure_agreement(parent, child).to_json()
    int8 = precision == "int8"
    least = rule.min_agreement_int8 if int8 else rule.min_agreement_float
    drift = rule.max_mean_drift_int8 if int8 else rule.max_mean_drift_float
    checks += [
        Check("constant output", float(constant), 0.0, at_least=False),
        Check("top-1 agreement", agreement["top1_agreement"], least, at_least=True),
        Check("mean probability drift", agreement["mean_absolute_drift"], drift, at_least=False),
    ]
    if int8:
        checks.append(
            Check("share of int8 weights", int8_weight_share, MIN_INT8_WEIGHTS, at_least=True)
        )
    return Verification(len(parent), tuple(checks), agreement)
