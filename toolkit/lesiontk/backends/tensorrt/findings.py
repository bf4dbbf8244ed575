"""Findings of a check: nodes that TensorRT would refuse, and why."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Finding:
    """A node, its operator, and why TensorRT does not accept it as intended.

    `check` is the source: ``lint``, ``operators 8.5`` (the table), or the parser's name.
    """

    check: str
    node: str
    operator: str
    reason: str

    def __str__(self) -> str:
        return f"{self.operator} {self.node}: {self.reason} ({self.check})"

    def to_document(self) -> dict[str, str]:
        """Return the fields as plain values."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class FindingGroup:
    """Findings that differ only in their nodes and in the numbers of their reasons."""

    first: Finding
    nodes: tuple[str, ...]

    def __str__(self) -> str:
        """Return one line: the reason, the number of nodes, and the first of them."""
        found = self.first
        count = f"{len(self.nodes)} nodes, the first" if len(self.nodes) > 1 else "1 node,"
        return f"{found.operator}: {found.reason} ({found.check}): {count} {found.node}"

    def to_document(self) -> dict[str, Any]:
        """Return the fields as plain values."""
        found = self.first
        return {
            "check": found.check,
            "operator": found.operator,
            "reason": found.reason,
            "nodes": len(self.nodes),
        }


def group_findings(findings: Iterable[Finding]) -> tuple[FindingGroup, ...]:
    """Return the findings by check, operator and reason, the largest group first."""
    groups: dict[tuple[str, str, str], list[Finding]] = {}
    for finding in findings:
        kind = (finding.check, finding.operator, re.sub(r"\d+", "N", finding.reason))
        groups.setdefault(kind, []).append(finding)
    made = [FindingGroup(group[0], tuple(f.node for f in group)) for group in groups.values()]
    return tuple(sorted(made, key=lambda group: -len(group.nodes)))


def describe_findings(findings: Iterable[Finding], limit: int = 5) -> str:
    """Return the first findings as one line."""
    listed = [str(finding) for finding in findings]
    more = f"; and {len(listed) - limit} more" if len(listed) > limit else ""
    return "; ".join(listed[:limit]) + more
