"""The outcome of an acceptance gate: passed, failed, or not shown with too few lesions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from lesiontk.document import Record
from lesiontk.stage import EngineName, split_reference


class Outcome(StrEnum):
    """The outcome of a gate. `NOT_SHOWN`: the data shows neither a pass nor a failure."""

    PASSED = "passed"
    FAILED = "failed"
    NOT_SHOWN = "not_shown"

    @property
    def words(self) -> str:
        """Return the outcome as text."""
        return self.value.replace("_", " ")


class Unresolved(StrEnum):
    """The effect of a gate that is not shown: a warning, or exit code 1."""

    WARN = "warn"
    FAIL = "fail"


class Comparand(StrEnum):
    """The quantity of a gate: the loss against the parent, a metric's value, or a device figure."""

    LOSS = "loss"
    VALUE = "value"
    DEVICE = "device"


@dataclass(frozen=True, slots=True)
class GateVerdict(Record):
    """One gate on one engine.

    `reference` is True if `parent` is of the network before compression. `measured` is the loss
    against the parent (positive: the engine is worse), the value of the
    metric, or of a device figure in the unit of its name. `low` and `high` are its one-sided bounds
    at `confidence`; None without resampling. `limit` is the margin or the bound of the gate.
    `p_value` is that of the gate's test; `p_adjusted` is after Holm's adjustment for `tests` tests.
    `lesions` is the number of lesions `of` the kind that the metric needs; `needed` is the
    sufficient number with the same results, None if no number suffices. `reason` is the reason for
    the outcome not shown; empty for other outcomes.
    """

    engine: str
    gate: str
    metric: str
    comparand: Comparand
    outcome: Outcome
    limit: float
    parent: str | None = None
    reference: bool = False
    measured: float | None = None
    low: float | None = None
    high: float | None = None
    confidence: float | None = None
    p_value: float | None = None
    p_adjusted: float | None = None
    tests: int | None = None
    method: str = ""
    lesions: int | None = None
    of: str = "lesions"
    needed: int | None = None
    reason: str = ""

    @classmethod
    def upgrade(cls, document: dict[str, Any]) -> dict[str, Any]:
        """Return the fields; earlier documents mark the parent's name as a reference."""
        return split_reference(document, "parent")

    def __post_init__(self) -> None:
        if (self.outcome is Outcome.NOT_SHOWN) != bool(self.reason):
            raise ValueError(
                f"{self.engine}, {self.gate}: expected a reason if, and only if, the gate is not "
                "shown"
            )

    @property
    def parent_name(self) -> EngineName | None:
        """The parent in the benchmark."""
        return None if self.parent is None else EngineName(self.parent, reference=self.reference)

    @property
    def passed(self) -> bool:
        """Whether the gate passed."""
        return self.outcome is Outcome.PASSED

    @property
    def failed(self) -> bool:
        """Whether the gate failed."""
        return self.outcome is Outcome.FAILED

    @property
    def unresolved(self) -> bool:
        """Whether it neither passed nor failed."""
        return self.outcome is Outcome.NOT_SHOWN

    def blocks(self, unresolved: Unresolved) -> bool:
        """Return whether this verdict ends a command with exit code 1."""
        return self.failed or (self.unresolved and unresolved is Unresolved.FAIL)

    def describe(self) -> str:
        """Return the verdict as a sentence without its full stop."""
        subject = f"{self.engine}: `{self.gate}` {self.outcome.words}"
        return f"{subject}: {self.reason or self._describe_measured()}"

    def _describe_measured(self) -> str:
        if self.measured is None:
            return "nothing was measured"
        what = {
            Comparand.LOSS: f"the loss against {self.parent_name} is",
            Comparand.VALUE: "the value is",
            Comparand.DEVICE: "the figure is",
        }[self.comparand]
        text = f"{what} {self.measured:.4g}"
        if self.confidence is not None and self.low is not None and self.high is not None:
            text += (
                f" (one-sided {100 * self.confidence:.6g} % bounds {self.low:.4g} and "
                f"{self.high:.4g})"
            )
        return text


def sort_verdicts(verdicts: Iterable[GateVerdict]) -> tuple[GateVerdict, ...]:
    """Return verdicts sorted by outcome: failures first, then not shown."""
    order = (Outcome.FAILED, Outcome.NOT_SHOWN, Outcome.PASSED)
    return tuple(sorted(verdicts, key=lambda verdict: order.index(verdict.outcome)))


def describe_unpassed(verdicts: Sequence[GateVerdict]) -> str | None:
    """Return why an engine did not pass its gates, as clauses; None if it passed some, and all."""
    if not verdicts:
        return "the engine was not tested by gates"
    return "; ".join(v.describe() for v in sort_verdicts(verdicts) if not v.passed) or None


def describe_outcomes(verdicts: Iterable[GateVerdict]) -> str:
    """Return the counts of outcomes, as ``3 passed, 1 not shown``."""
    listed = [verdict.outcome for verdict in verdicts]
    counts = {outcome: listed.count(outcome) for outcome in Outcome}
    counted = [f"{count} {outcome.words}" for outcome, count in counts.items() if count]
    return ", ".join(counted) or "no gate was tested"
