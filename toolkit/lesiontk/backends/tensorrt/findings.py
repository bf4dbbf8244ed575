"""What a check found: one node that TensorRT would refuse, and why."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass


@dataclass(frozen=True, slots=True)
class Finding:
    """A node, its operator, and the reason why TensorRT does not take it as intended.

    `check` says what found it: ``lint``, ``operators 8.5`` (the table), or the parser's name.
    """

    check: str
    node: str
    operator: str
    reason: str

    def __str__(self) -> str:
        return f"{self.operator} {self.node}: {self.reason} ({self.check})"

    def to_json(self) -> dict[str, str]:
        """Return the fields as plain values."""
        return asdict(self)


def describe_findings(findings: Iterable[Finding], limit: int = 5) -> str:
    """Return the first findings as one line."""
    listed = [str(finding) for finding in findings]
    more = f"; and {len(listed) - limit} more" if len(listed) > limit else ""
    return "; ".join(listed[:limit]) + more
