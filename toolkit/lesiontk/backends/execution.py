"""The provider, delegate or builder that was requested from a runtime, and the one used."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

from lesiontk.document import Record

NOTHING = "none"
ON_CPU = {
    "provider": ("CPUExecutionProvider", "DnnlExecutionProvider", "XnnpackExecutionProvider"),
    "device": ("CPU",),
}
"""What executes on the CPU, of the kinds that may do so elsewhere; a ``runtime`` does not."""


@dataclass(frozen=True, slots=True)
class Execution(Record):
    """A runtime, its provider, delegate or builder: what was requested and what runs.

    `kind` is one of these words; `used` is ``none`` if nothing replaced what was requested.
    `detail` is the reason, or the part of the graph it runs, if known.
    """

    DERIVED: ClassVar[tuple[str, ...]] = ("fell_back",)

    kind: str
    asked: str
    used: str
    detail: str = ""

    @property
    def fell_back(self) -> bool:
        """Whether something else runs than was requested."""
        return self.asked != self.used

    def describe(self) -> str:
        """Return a clause on what was requested and what ran."""
        applied = "none was applied" if self.used == NOTHING else f"{self.used} ran"
        why = f" ({self.detail})" if self.detail else ""
        return f"{self.kind} {self.asked} was requested, {applied}{why}"


def find_fallback(executions: Iterable[Execution]) -> Execution | None:
    """Return the runtime that replaces the requested one, or None."""
    return next((each for each in executions if each.kind == "runtime" and each.fell_back), None)


def name_emulator(executions: Iterable[Execution]) -> str | None:
    """Return what runs in the place of the requested runtime; None if that itself runs."""
    fallback = find_fallback(executions)
    return fallback.used if fallback else None


def runs_on_cpu(executions: Iterable[Execution]) -> bool:
    """Return whether an engine executes on the CPU, by its own runtime."""
    return all(
        each.kind != "runtime" and each.used in ON_CPU.get(each.kind, (each.used,))
        for each in executions
    )
