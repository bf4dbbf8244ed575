"""The tests of acceptance gates, on engines' outputs and on the measurements of their files.

A gate against the parent is a one-sided non-inferiority test at its confidence. It is *passed* if
the upper bound of the loss is within the margin, after Holm's adjustment over all gates and engines
that are tested together; *failed* if the lower bound exceeds it (for each gate alone: an adjustment
would only hide failures); else *not shown*. A bound of a metric's value at a confidence is tested
in the same way; without a confidence the measured value decides.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TypedDict

from lesiontk.evaluate.device_gate import DeviceFigures, judge_device
from lesiontk.evaluate.gate_statistic import GateStatistic
from lesiontk.evaluate.holm import adjust_holm
from lesiontk.evaluate.loss_bounds import LossEstimator, Predictions
from lesiontk.evaluate.verdict import Comparand, GateVerdict, Outcome
from lesiontk.recipe import EvaluateRule
from lesiontk.recipe.gate_grammar import AT_PARENT_SPECIFICITY, Gate, is_of_positive, parse_gates
from lesiontk.stage import EngineName

RESAMPLES_BEYOND = 10
"""The minimum number of resamples beyond the smallest alpha of Holm's adjustment."""


@dataclass(frozen=True, slots=True)
class GateInput:
    """The input of the gates on an engine: its predictions with its parent's, and its measurements.

    `not_measured` is the reason why predictions or measurements are missing; each gate that needs
    them reports it.
    """

    engine: str
    parent: str | None = None
    predictions: Predictions | None = None
    device: DeviceFigures | None = None
    not_measured: str = "the engine was not evaluated"


class _Parent(TypedDict):
    parent: str | None
    reference: bool


@dataclass(frozen=True, slots=True)
class _Test:
    """One gate on one engine, before the adjustment."""

    judged: GateInput
    gate: Gate
    statistic: GateStatistic
    p_value: float

    @property
    def sign(self) -> float:
        """-1 if the statistic is the negative of the reported value."""
        return 1.0 if self.gate.relative or self.gate.lower_is_better else -1.0

    @property
    def limit(self) -> float:
        return self.sign * self.gate.limit


def judge_engines(
    judged: Iterable[GateInput], gates: Sequence[str], statistics: EvaluateRule
) -> tuple[GateVerdict, ...]:
    """Return the verdict of each gate on each engine; Holm's adjustment is over all of them.

    A gate that cannot be tested (no images of the class, no parent, an emulated engine's latency)
    is not shown, with the reason. Raises `UsageError` for an invalid gate.
    """
    rules, engines = parse_gates(gates), tuple(judged)
    confidence_text = [gate for gate in rules if gate.confidence is not None and not gate.of_device]
    smallest = min((1 - float(g.confidence or 0) for g in confidence_text), default=1.0)
    family = max(1, len(confidence_text) * len(engines))
    resamples = max(statistics.resamples, round(RESAMPLES_BEYOND * family / smallest))
    found: list[GateVerdict | _Test] = []
    for entry in engines:
        judge = None
        if entry.predictions is not None and any(not gate.of_device for gate in rules):
            judge = LossEstimator(entry.predictions, resamples=resamples, seed=statistics.seed)
        for gate in rules:
            if gate.of_device:
                found.append(judge_device(entry.engine, gate, entry.device, entry.not_measured))
            else:
                found.append(_prepare(entry, gate, judge))
    tests = [entry for entry in found if isinstance(entry, _Test) and entry.gate.confidence]
    adjusted = adjust_holm(
        [test.p_value for test in tests], [1 - float(t.gate.confidence or 0) for t in tests]
    )
    verdicts = {
        id(test): _decide(test, p_adjusted, len(tests))
        for test, p_adjusted in zip(tests, adjusted, strict=True)
    }
    return tuple(
        entry
        if isinstance(entry, GateVerdict)
        else verdicts[id(entry)] if id(entry) in verdicts else _decide_as_measured(entry)
        for entry in found
    )  # fmt: skip


def _prepare(entry: GateInput, gate: Gate, judge: LossEstimator | None) -> GateVerdict | _Test:
    statistic = judge.measure(gate) if judge is not None else None
    if statistic is None:
        return GateVerdict(
            engine=entry.engine,
            gate=str(gate),
            metric=gate.metric,
            comparand=Comparand.LOSS if gate.relative else Comparand.VALUE,
            outcome=Outcome.NOT_SHOWN,
            limit=gate.limit,
            **_name_parent(entry, gate),
            confidence=gate.confidence,
            reason=_explain_missing(entry, gate),
        )
    test = _Test(entry, gate, statistic, 1.0)
    return replace(test, p_value=statistic.p_value(test.limit)) if gate.confidence else test


def _name_parent(entry: GateInput, gate: Gate) -> _Parent:
    if entry.parent is None or not gate.relative:
        return {"parent": None, "reference": False}
    name = EngineName(entry.parent)
    return {"parent": name.target, "reference": name.reference}


def _explain_missing(entry: GateInput, gate: Gate) -> str:
    predictions = entry.predictions
    if predictions is None:
        return entry.not_measured
    if gate.relative and predictions.parent is None:
        return "the parent's predictions are not known"
    points = predictions.points
    if is_of_positive(gate, predictions.positive):
        point = points.at_specificity if gate.kind == AT_PARENT_SPECIFICITY else points.child
        if point is None or (gate.relative and points.parent is None):
            return "no threshold was frozen on validation"
    return f"no image has the labels of {gate.metric}"


def _decide_as_measured(test: _Test) -> GateVerdict:
    holds = test.statistic.value <= test.limit
    return replace(
        _describe(test),
        outcome=Outcome.PASSED if holds else Outcome.FAILED,
        method="as measured",
        reason="",
    )


def _decide(test: _Test, p_adjusted: float, tests: int) -> GateVerdict:
    alpha = 1 - float(test.gate.confidence or 0)
    found = replace(_describe(test), p_value=test.p_value, p_adjusted=p_adjusted, tests=tests)
    bound = test.statistic.bound(1 - alpha)
    if p_adjusted <= alpha:
        return replace(found, outcome=Outcome.PASSED, reason="")
    if bound.low > test.limit:
        return replace(found, outcome=Outcome.FAILED, reason="")
    adjusted_alpha = alpha * test.p_value / p_adjusted if test.p_value <= alpha else alpha
    needed = test.statistic.count_needed(test.limit, 1 - adjusted_alpha)
    return replace(found, needed=needed, reason=_explain_unresolved(test, found, needed))


def _explain_unresolved(test: _Test, found: GateVerdict, needed: int | None) -> str:
    of, n = test.statistic.of, test.statistic.lesions
    what = "loss" if test.gate.relative else test.gate.metric
    confidence_text = f"{100 * float(test.gate.confidence or 0):.6g} %"
    if test.p_value <= 1 - float(test.gate.confidence or 0):
        return (
            f"alone it would pass (p = {test.p_value:.2g}), but not among {found.tests} tests "
            f"(Holm: p = {found.p_adjusted:.2g}); {_describe_needed(n, of, needed)}"
        )
    beyond = test.statistic.value > test.limit
    worst = test.sign * test.statistic.bound(float(test.gate.confidence or 0)).high
    measured = f"the measured {what} is {found.measured:.4g}"
    if beyond:
        return (
            f"{measured}, beyond the limit of {test.gate.limit:.4g}, which may be chance on {n} "
            f"{of}"
        )
    return (
        f"{measured}, but its {confidence_text} bound is {worst:.4g}; "
        f"{_describe_needed(n, of, needed)}"
    )


def _describe_needed(n: int, of: str, needed: int | None) -> str:
    enough = "no number suffices" if needed is None else f"about {needed} suffice"
    return f"{n} {of} are too few; {enough}"


def _describe(test: _Test) -> GateVerdict:
    """Return the verdict with all but its outcome, which is not shown until it is decided."""
    gate, statistic = test.gate, test.statistic
    bound = statistic.bound(gate.confidence) if gate.confidence else None
    ends = sorted(test.sign * x + 0.0 for x in (bound.low, bound.high)) if bound else (None, None)
    return GateVerdict(
        engine=test.judged.engine,
        gate=str(gate),
        metric=gate.metric,
        comparand=Comparand.LOSS if gate.relative else Comparand.VALUE,
        outcome=Outcome.NOT_SHOWN,
        limit=gate.limit,
        **_name_parent(test.judged, gate),
        measured=test.sign * statistic.value + 0.0,  # no minus before a zero
        low=ends[0],
        high=ends[1],
        confidence=gate.confidence,
        method=statistic.method,
        lesions=statistic.lesions,
        of=statistic.of,
        reason="not decided yet",
    )
