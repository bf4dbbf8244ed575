"""A trial of a search: its values, and what became of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lesiontk.document import Record
from lesiontk.search.criteria import Figures, Violation

COMPLETE, INFEASIBLE, FAILED = "complete", "infeasible", "failed"
PRUNED, RUNNING, WAITING = "pruned", "running", "waiting"
STATES = (COMPLETE, INFEASIBLE, FAILED, PRUNED, RUNNING, WAITING)

Assignment = Mapping[str, Any]
"""Key -> value, a plain JSON value, of the keys that apply to one candidate."""


@dataclass(frozen=True, slots=True)
class TrialRecord(Record):
    """A trial: its values by key, and what became of it.

    `figures` are those of its engine; `violations` the constraints that this does not meet.
    `reason` says why there is no engine (`failed`, `pruned`). `host` is a machine, by `name_host`.
    """

    number: int
    state: str
    assignment: Assignment
    figures: Figures | None = None
    violations: tuple[Violation, ...] = ()
    reason: str = ""
    host: str = ""
    seconds: float | None = None

    @property
    def is_finished(self) -> bool:
        """Whether it will not change any more."""
        return self.state not in (RUNNING, WAITING)
