"""What a runtime was asked to run a graph with, and what it took instead."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

NOTHING = "none"


@dataclass(frozen=True, slots=True)
class Execution:
    """A runtime, its provider, delegate or builder: what was asked for, what runs.

    `kind` is one of these words; `used` is ``none`` where nothing took the place of what was asked
    for. `detail` says why, or how much of the graph it runs, where that is known.
    """

    kind: str
    asked: str
    used: str
    detail: str = ""

    @property
    def fell_back(self) -> bool:
        """Whether something else runs than was asked for."""
        return self.asked != self.used

    def to_json(self) -> dict[str, Any]:
        """Return the fields and `fell_back` as plain values."""
        return {**asdict(self), "fell_back": self.fell_back}


def find_fallback(executions: Iterable[Execution]) -> Execution | None:
    """Return the runtime that answers in the place of the one asked for, if another does."""
    return next((each for each in executions if each.kind == "runtime" and each.fell_back), None)


def describe_fallbacks(row: Mapping[str, Any]) -> list[str]:
    """Return a sentence for each thing that fell back in a benchmark's row; none where unknown."""
    return [
        f"{entry['kind']} {entry['asked']} was asked for, "
        + ("none was applied" if entry["used"] == NOTHING else f"{entry['used']} ran")
        + (f" ({entry['detail']})" if entry["detail"] else "")
        for entry in row.get("execution", ())
        if entry["fell_back"]
    ]
