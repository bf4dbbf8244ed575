"""Verification of a converted engine against its parent. Plain NumPy over two sets of outputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from lesiontk.document import Record
from lesiontk.evaluate.comparison import Agreement, is_constant, measure_agreement
from lesiontk.evaluate.metrics import ROW_SUM_TOLERANCE
from lesiontk.recipe import VerifyRule

MIN_NARROW_WEIGHTS = 0.9
"""Minimum share of the weights of an engine of reduced precision that have that precision."""

MIN_INTEGER_OPERATORS = 0.5
"""Minimum share of a static int8 engine's operators that compute in integers."""

INTEGER = ("int8", "int16x8")
"""The precisions whose activations are integers."""

UNEXPLAINED = "operators in float without a reason"
GOLDEN = "golden mean drift"
SATURATED = "biases saturated at a limit of int32"

PRECISION_CLASSES: dict[str, Literal["float", "half", "int8"]] = {
    "float32": "float",
    "float16": "half",
    "int8": "int8",
    "dynamic_int8": "int8",
    "int16x8": "int8",
    "mixed": "int8",
}
"""Precision -> its class of thresholds in `VerifyRule`."""


class Structure(Protocol):
    """An engine's file: shares 0..1 of its weights and operators, and saturated biases."""

    @property
    def int8_weight_share(self) -> float: ...
    @property
    def float16_weight_share(self) -> float: ...
    @property
    def integer_operator_share(self) -> float: ...
    @property
    def saturated_biases(self) -> Mapping[str, Sequence[int]]: ...


@dataclass(frozen=True, slots=True)
class Check(Record):
    """One measured value and its bound, a minimum if `at_least`, else a maximum.

    `found` lists the names of counted items, if they have names.
    """

    DERIVED: ClassVar[tuple[str, ...]] = ("passed",)

    name: str
    value: float
    bound: float
    at_least: bool
    found: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether the value is within its bound."""
        return self.value >= self.bound if self.at_least else self.value <= self.bound

    def __str__(self) -> str:
        sign = "at least" if self.at_least else "at most"
        named = f" ({', '.join(self.found[:3])}{', ...' * (len(self.found) > 3)})"
        received = f"{self.value:.4g}{named if self.found else ''}"
        return f"{self.name} is {received}; expected {sign} {self.bound:.4g}"


@dataclass(frozen=True, slots=True)
class Verification(Record):
    """Every check of one engine against its parent on n images.

    `agreement` is None if the outputs are not finite or not probabilities. `golden_agreement` is
    that on the golden images, `rounded_agreement` that with the fake-quantized model, if there is
    one.
    """

    DERIVED: ClassVar[tuple[str, ...]] = ("passed",)

    n: int
    checks: tuple[Check, ...]
    agreement: Agreement | None
    golden_agreement: Agreement | None = None
    rounded_agreement: Agreement | None = None

    @property
    def passed(self) -> bool:
        """Whether every check passed."""
        return all(check.passed for check in self.checks)

    def describe_failures(self) -> str:
        """Return the checks that failed, each with its value and bound."""
        return "; ".join(str(check) for check in self.checks if not check.passed)


def verify_outputs(
    parent: NDArray[np.float32],
    child: NDArray[np.float32],
    *,
    precision: str,
    structure: Structure,
    unexplained: Sequence[str],
    rule: VerifyRule,
    same_description: bool = True,
    golden: tuple[NDArray[np.float32], NDArray[np.float32]] | None = None,
    rounded: tuple[NDArray[np.float32], NDArray[np.float32]] | None = None,
) -> Verification:
    """Compare probabilities float32 [N, C] of parent and child on the same images.

    An engine of reduced precision must contain such weights, and a static int8 one must compute in
    integers without `unexplained` operators, which are in float without a known reason. No integer
    bias may be saturated. Outputs must be finite probabilities, and not constant if the parent's
    vary. `same_description` is whether labels and preprocessing equal the parent's; `golden` are
    parent's and child's outputs for the golden images, `rounded` those of the fake-quantized model
    and of the child for the same images.
    """
    outputs = np.concatenate([child, *(pair[1] for pair in (golden, rounded) if pair is not None)])
    finite = np.isfinite(outputs).all(axis=1)
    checks = [Check("share of finite outputs", float(finite.mean()), 1.0, at_least=True)]
    if finite.all():
        distance = np.abs(outputs.sum(axis=1, dtype=np.float64) - 1.0)
        valid = (outputs >= 0).all(axis=1) & (distance <= ROW_SUM_TOLERANCE)
        checks.append(
            Check(
                "share of outputs that are probabilities", float(valid.mean()), 1.0, at_least=True
            )
        )
    if not checks[-1].passed:
        return Verification(len(parent), tuple(checks), None)
    constant = is_constant(child) and not is_constant(parent)
    agreement = measure_agreement(parent, child)
    least, drift = limits_of(rule, precision)
    checks += [
        Check("constant output", float(constant), 0.0, at_least=False),
        Check("top-1 agreement", agreement.top1_agreement, least, at_least=True),
        Check("mean probability drift", agreement.mean_absolute_drift, drift, at_least=False),
        Check("parent's description", float(same_description), 1.0, at_least=True),
    ]
    shown = None if golden is None else measure_agreement(*golden)
    if shown is not None:
        checks.append(Check(GOLDEN, shown.mean_absolute_drift, drift, at_least=False))
    trained = None if rounded is None else measure_agreement(*rounded)
    if trained is not None:
        least = rule.min_agreement_qat
        checks.append(
            Check("top-1 agreement with rounding", trained.top1_agreement, least, at_least=True)
        )
    narrow = {"half": structure.float16_weight_share, "int8": structure.int8_weight_share}
    kind = classify_precision(precision)
    if kind != "float" and precision != "mixed":  # the share is the result of a search
        name = "share of int8 weights" if kind == "int8" else "share of float16 weights"
        checks.append(Check(name, narrow[kind], MIN_NARROW_WEIGHTS, at_least=True))
    saturated = structure.saturated_biases
    if kind == "int8":
        named = tuple(
            f"{layer} channel {index}"
            for layer, saturated_list in saturated.items()
            for index in saturated_list
        )
        checks.append(Check(SATURATED, float(len(named)), 0.0, at_least=False, found=named))
    if precision in INTEGER:
        share = structure.integer_operator_share
        checks.append(
            Check("share of integer operators", share, MIN_INTEGER_OPERATORS, at_least=True)
        )
        left = tuple(unexplained)
        checks.append(Check(UNEXPLAINED, float(len(left)), 0.0, at_least=False, found=left))
    return Verification(len(parent), tuple(checks), agreement, shown, trained)


def classify_precision(precision: str) -> Literal["float", "half", "int8"]:
    """Return the class of thresholds of a precision. Raises `ValueError` for an unknown one."""
    if precision not in PRECISION_CLASSES:
        raise ValueError(
            f"precision {precision!r} has no class of thresholds; add it to PRECISION_CLASSES"
        )
    return PRECISION_CLASSES[precision]


def limits_of(rule: VerifyRule, precision: str) -> tuple[float, float]:
    """Return the minimum agreement and the maximum mean drift of a precision."""
    return {
        "float": (rule.min_agreement_float, rule.max_mean_drift_float),
        "half": (rule.min_agreement_half, rule.max_mean_drift_half),
        "int8": (rule.min_agreement_int8, rule.max_mean_drift_int8),
    }[classify_precision(precision)]
