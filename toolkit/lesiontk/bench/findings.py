"""Findings of a benchmark, once for all engines to which they apply."""

from __future__ import annotations

from lesiontk.bench.benchmark import Benchmark, list_emulated
from lesiontk.bench.speed import describe_noise
from lesiontk.evaluate.findings import (
    CriticalRecall,
    describe_absent,
    explain_uninformative,
    read_critical_recall,
)


def critical_recalls(benchmark: Benchmark) -> dict[str, CriticalRecall]:
    """Return target -> the recall of the critical class, of each row with scores."""
    return {
        row.key: read_critical_recall(
            row, benchmark.labels, benchmark.critical, benchmark.confidence
        )
        for row in benchmark.rows
        if row.metrics
    }


def list_uninformative(benchmark: Benchmark) -> dict[str, list[str]]:
    """Return how engines fail to separate the classes -> their targets."""
    found: dict[str, list[str]] = {}
    for row in benchmark.rows:
        if row.metrics:
            for clause in explain_uninformative(row, benchmark.labels):
                found.setdefault(clause, []).append(row.key)
    return found


def list_low_recalls(benchmark: Benchmark) -> dict[CriticalRecall, list[str]]:
    """Return low recall of the critical class -> the targets with it."""
    found: dict[CriticalRecall, list[str]] = {}
    for target, recall in critical_recalls(benchmark).items():
        if recall.list_cautions():
            found.setdefault(recall, []).append(target)
    return found


def list_findings(benchmark: Benchmark) -> list[str]:
    """Return sentences without their full stop, the most important first."""
    judged = [row for row in benchmark.rows if row.metrics]
    absent = describe_absent(judged[0], benchmark.labels) if judged else ""
    sentences = [absent] if absent else []
    sentences += [
        f"{', '.join(targets)}: {clause}"
        for clause, targets in list_uninformative(benchmark).items()
    ]
    sentences += [
        f"{', '.join(targets)}: {recall.describe()}; {'; '.join(recall.list_cautions())}"
        for recall, targets in list_low_recalls(benchmark).items()
    ]
    sentences += [
        f"{target} was emulated by {emulator}: its scores are those of its graph's arithmetic, its "
        "latency is unknown"
        for target, emulator in list_emulated(benchmark.rows).items()
    ]
    return sentences + [noise for noise in [describe_noise(benchmark.rows)] if noise]
