"""Acceptance gates judged: on engines' answers, and on what was measured of their files.

A gate against the parent is a non-inferiority test at its confidence, one-sided. It is *passed* if
the upper bound of the loss lies within the margin, after Holm's adjustment over all gates and
engines that are judged together; *failed* if the lower bound lies beyond it (each gate alone: an
adjustment would only make failures harder to see); else *not shown*. A bound of a metric's value at
a confidence is tested alike; without a confidence the value that was measured decides.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from lesiontk.evaluate.badness import Badness
from lesiontk.evaluate.device_gate import DeviceFigures, judge_device
from lesiontk.evaluate.holm import adjust_holm
from lesiontk.evaluate.loss_bounds import Answers, Judge
from lesiontk.evaluate.verdict import Comparand, GateVerdict, Outcome
from lesiontk.recipe import EvaluateRule
from lesiontk.recipe.gate_grammar import AT_PARENT_SPECIFICITY, Gate, is_of_positive, parse_gates

RESAMPLES_BEYOND = 10
"""Resamples that are wanted beyond the smallest alpha that Holm's adjustment asks for."""


@dataclass(frozen=True, slots=True)
class Judged:
    """What is known of an engine: its answers beside its parent's, and what was measured.

    `why_not` is why outputs or figures are missing; each gate that needs them reports it.
    """

    engine: str
    parent: str | None = None
    answers: Answers | None = None
    device: DeviceFigures | None = None
    why_not: str = "the engine was not evaluated"


@dataclass(frozen=True, slots=True)
class _Test:
    """One gate on one engine, before the adjustment."""

    judged: Judged
    gate: Gate
    badness: Badness
    p_value: float

    @property
    def sign(self) -> float:
        """-1 where the badness is the negative of what a reader expects to see."""
        return 1.0 if self.gate.relative or self.gate.lower_is_better else -1.0

    @property
    def limit(self) -> float:
        return self.sign * self.gate.limit


def judge_engines(
    judged: Iterable[Judged], gates: Sequence[str], statistics: EvaluateRule
) -> tuple[GateVerdict, ...]:
    """Return the verdict of each gate on each engine; Holm's adjustment is over all of them.

    What cannot be judged (no images of the class, no parent, an emulated engine's latency) is not
    shown, and says why. Raises `UsageError` for a line that is no gate.
    """
    rules, engines = parse_gates(gates), tuple(judged)
    sure = [gate for gate in rules if gate.confidence is not None and not gate.of_device]
    smallest = min((1 - float(g.confidence or 0) for g in sure), default=1.0)
    family = max(1, len(sure) * len(engines))
    resamples = max(statistics.resamples, round(RESAMPLES_BEYOND * family / smallest))
    found: list[GateVerdict | _Test] = []
    for entry in engines:
        judge = None
        if entry.answers is not None and any(not gate.of_device for gate in rules):
            judge = Judge(entry.answers, resamples=resamples, seed=statistics.seed)
        for gate in rules:
            if gate.of_device:
                found.append(judge_device(entry.engine, gate, entry.device, entry.why_not))
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


def _prepare(entry: Judged, gate: Gate, judge: Judge | None) -> GateVerdict | _Test:
    badness = judge.measure(gate) if judge is not None else None
    if badness is None:
        return GateVerdict(
            engine=entry.engine,
            gate=str(gate),
            metric=gate.metric,
            comparand=Comparand.LOSS if gate.relative else Comparand.VALUE,
            outcome=Outcome.NOT_SHOWN,
            limit=gate.limit,
            parent=entry.parent if gate.relative else None,
            confidence=gate.confidence,
            reason=_explain_missing(entry, gate),
        )
    test = _Test(entry, gate, badness, 1.0)
    return replace(test, p_value=badness.p_value(test.limit)) if gate.confidence else test


def _explain_missing(entry: Judged, gate: Gate) -> str:
    answers = entry.answers
    if answers is None:
        return entry.why_not
    if gate.relative and answers.parent is None:
        return "the parent's answers are not known"
    points = answers.points
    if is_of_positive(gate, answers.positive):
        point = points.at_specificity if gate.kind == AT_PARENT_SPECIFICITY else points.child
        if point is None or (gate.relative and points.parent is None):
            return "no threshold was frozen on validation"
    return f"no image has what {gate.metric} is of"


def _decide_as_measured(test: _Test) -> GateVerdict:
    holds = test.badness.value <= test.limit
    return replace(
        _describe(test),
        outcome=Outcome.PASSED if holds else Outcome.FAILED,
        method="as measured",
        reason="",
    )


def _decide(test: _Test, p_adjusted: float, tests: int) -> GateVerdict:
    alpha = 1 - float(test.gate.confidence or 0)
    found = replace(_describe(test), p_value=test.p_value, p_adjusted=p_adjusted, tests=tests)
    bound = test.badness.bound(1 - alpha)
    if p_adjusted <= alpha:
        return replace(found, outcome=Outcome.PASSED, reason="")
    if bound.low > test.limit:
        return replace(found, outcome=Outcome.FAILED, reason="")
    adjusted_alpha = alpha * test.p_value / p_adjusted if test.p_value <= alpha else alpha
    needed = test.badness.count_needed(test.limit, 1 - adjusted_alpha)
    return replace(found, needed=needed, reason=_explain_unresolved(test, found, needed))


def _explain_unresolved(test: _Test, found: GateVerdict, needed: int | None) -> str:
    of, n = test.badness.of, test.badness.lesions
    what = "loss" if test.gate.relative else test.gate.metric
    sure = f"{100 * float(test.gate.confidence or 0):.6g} %"
    if test.p_value <= 1 - float(test.gate.confidence or 0):
        return (
            f"alone it would pass (p = {test.p_value:.2g}), but not among {found.tests} tests "
            f"(Holm: p = {found.p_adjusted:.2g}); {_tell_needed(n, of, needed)}"
        )
    beyond = test.badness.value > test.limit
    worst = test.sign * test.badness.bound(float(test.gate.confidence or 0)).high
    measured = f"the {what} that was measured is {found.measured:.4g}"
    if beyond:
        return (
            f"{measured}, beyond the limit of {test.gate.limit:.4g}, and may be chance on {n} {of}"
        )
    return (
        f"{measured}, but with {sure} confidence only that it is no worse than {worst:.4g} is "
        f"shown; {_tell_needed(n, of, needed)}"
    )


def _tell_needed(n: int, of: str, needed: int | None) -> str:
    enough = "no number would be enough" if needed is None else f"about {needed} would be enough"
    return f"{n} {of} are too few, {enough}"


def _describe(test: _Test) -> GateVerdict:
    """Return the verdict with all but its outcome, which is not shown until it is decided."""
    gate, badness = test.gate, test.badness
    bound = badness.bound(gate.confidence) if gate.confidence else None
    ends = sorted(test.sign * x + 0.0 for x in (bound.low, bound.high)) if bound else (None, None)
    return GateVerdict(
        engine=test.judged.engine,
        gate=str(gate),
        metric=gate.metric,
        comparand=Comparand.LOSS if gate.relative else Comparand.VALUE,
        outcome=Outcome.NOT_SHOWN,
        limit=gate.limit,
        parent=test.judged.parent if gate.relative else None,
        measured=test.sign * badness.value + 0.0,  # no minus before a zero
        low=ends[0],
        high=ends[1],
        confidence=gate.confidence,
        method=badness.method,
        lesions=badness.lesions,
        of=badness.of,
        reason="not decided yet",
    )
