"""Tables and figures as text for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lesiontk.backends.execution import describe_fallbacks
from lesiontk.bench.benchmark import emulated_by, list_fallbacks, name_target, size_facts
from lesiontk.cli.session import say
from lesiontk.errors import escape_controls
from lesiontk.evaluate.verdict import describe_outcomes, read_verdicts
from lesiontk.report import result_table
from lesiontk.report.formatting import count_things


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]], title: str = "") -> None:
    """Print a table; columns after the first are right-aligned."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=escape(escape_controls(title)) or None, title_justify="left")
    for number, name in enumerate(columns):
        table.add_column(
            escape(escape_controls(name)), justify="right" if number else "left", overflow="fold"
        )
    for row in rows:
        table.add_row(*(escape(escape_controls(cell)) for cell in row))
    console = Console()
    # A pipe has no width; there no path must be cut or broken.
    (console if console.is_terminal else Console(width=10_000)).print(table)


def format_estimate(estimate: Mapping[str, float | None] | None) -> str:
    """Return ``0.812 (0.790–0.834)``, or a dash where nothing is known."""
    return result_table.format_estimate(estimate, interval="({}–{})")


def format_bytes(size: float) -> str:
    """Return bytes in the unit that reads best."""
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.2f} GB"


def print_verdicts(document: Mapping[str, Any]) -> None:
    """Print what the gates of a document found; nothing where no gate judged."""
    verdicts = read_verdicts(document) if document.get("gate") else ()
    if not verdicts:
        return
    rows = []
    for verdict in verdicts:
        shown = [
            "–" if x is None else f"{x:.4g}" for x in (verdict.measured, verdict.low, verdict.high)
        ]
        rows.append([verdict.engine, verdict.gate, verdict.outcome.words, *shown])
    print_table(
        ["engine", "gate", "verdict", "measured", "lower bound", "upper bound"],
        rows,
        title=f"gates: {describe_outcomes(verdicts)}",
    )


def print_evaluation(document: Mapping[str, Any]) -> None:
    """Print an evaluation: the metrics, the operating point, the confusion matrix."""
    value = f"value ({document['confidence']:.0%} interval)"
    print_table(
        ["metric", value],
        [[name, format_estimate(e)] for name, e in document["metrics"].items()],
        title=f"{document['target']}: {count_things(document['n'], 'image')} of "
        f"{count_things(document['lesions'], 'lesion')}",
    )
    point = document["operating_point"]
    rows = [[name, format_estimate(point[name])] for name in ("sensitivity", "specificity", "auc")]
    print_table(
        ["operating point", value],
        [
            ["positive", " + ".join(point["positive"])],
            ["threshold", f"{point['threshold']:.4g}"],
            ["chosen by", result_table.describe_origin(point)],
            *rows,
        ],
    )
    if document["temperature"]:
        scaled = document["temperature"]
        print_table(
            ["temperature", value],
            [
                ["fitted on validation", f"{scaled['temperature']:.3f}"],
                ["calibration error at it", format_estimate(scaled["expected_calibration_error"])],
            ],
        )
    names = document["labels"]
    counts = [[n, *map(str, r)] for n, r in zip(names, document["confusion"], strict=True)]
    print_table(["truth \\ answer", *names], counts)
    print_verdicts(document)


def print_benchmark(document: Mapping[str, Any]) -> None:
    """Print a benchmark: one row an engine, and below the table what must be known with it."""
    critical = f"recall[{document['critical']}]" if "critical" in document else "recall"
    rows, sizes = [], size_facts(document["rows"])
    for row in document["rows"]:
        metrics, versus = row["metrics"] or {}, row["versus_parent"]
        mark = " (fell back)" if describe_fallbacks(row) else ""
        mark = " (emulated)" if emulated_by(row) else mark
        rows.append(
            [
                f"{name_target(row)}{sizes[name_target(row)]}{mark}",
                *_describe_cost(row),
                format_estimate(metrics.get("balanced_accuracy")),
                format_estimate(metrics.get(critical)),
                result_table.format_speedup(row, interval="({}–{})"),
                "–" if versus is None else f"{versus['size_ratio']:.2f}×",
            ]
        )
    print_table(
        ["engine", "median ms", "p90 ms", "size", "peak memory", "balanced accuracy", critical,
         "faster", "smaller"],
        rows,
        title=f"one image at a time, {document['threads']} thread(s), "
        f"n = {document['rows'][0]['latency_ms']['n']} per engine",
    )  # fmt: skip
    for target, sentences in list_fallbacks(document["rows"]).items():
        say(f"fallback: {target}: {'; '.join(sentences)}")
    print_verdicts(document)
    for sentence in document["findings"]:
        say(f"warning: {sentence}.")


def _describe_cost(row: Mapping[str, Any]) -> list[str]:
    """Return median, p90, size and peak memory; dashes for what emulation does not tell."""
    latency, size = row["latency_ms"], format_bytes(row["size_bytes"])
    if emulated_by(row):
        return ["–", "–", size, "–"]
    memory = format_bytes(row["peak_memory_bytes"])
    return [f"{latency['median']:.2f}", f"{latency['p90']:.2f}", size, memory]
