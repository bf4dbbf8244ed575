"""A benchmark as a Markdown table, for result files and model cards."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def format_estimate(
    estimate: Mapping[str, float | None] | None, digits: int = 3, interval: str = "[{}, {}]"
) -> str:
    """Return ``0.812 [0.790, 0.834]``, or a dash where the data cannot tell."""
    if estimate is None or estimate["value"] is None:
        return "–"
    value = f"{estimate['value']:.{digits}f}"
    if estimate["low"] is None:
        return value
    ends = (f"{estimate[end]:.{digits}f}" for end in ("low", "high"))
    return f"{value} {interval.format(*ends)}"


def table_from_benchmark(benchmark: Mapping[str, Any]) -> str:
    """Return the engines of a benchmark as Markdown, each beside its full-precision parent."""
    critical = f"recall[{benchmark['critical']}]"
    lines = [
        "| engine | median ms (p90) | size, MB | peak memory, MB | accuracy | balanced accuracy "
        f"| macro AUC | {critical} | against | faster | smaller | balanced-accuracy difference |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in benchmark["rows"]:
        metrics, versus, latency = row["metrics"], row["versus_parent"], row["latency_ms"]
        cells = [
            f"{row['backend']}:{row['precision']}",
            f"{latency['median']:.2f} ({latency['p90']:.2f})",
            f"{row['size_bytes'] / 1e6:.2f}",
            f"{row['peak_memory_bytes'] / 1e6:.0f}",
            *(
                format_estimate(metrics[name])
                for name in ("accuracy", "balanced_accuracy", "macro_auc", critical)
            ),
        ]
        if versus is None:
            cells += ["–"] * 4
        else:
            cells += [
                versus["parent"],
                f"{versus['speedup']:.2f}×",
                f"{versus['size_ratio']:.2f}×",
                format_estimate(versus["differences"]["balanced_accuracy"], 4),
            ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"
