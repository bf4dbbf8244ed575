"""Two benchmarks side by side as HTML, Markdown and tables."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lesiontk.bench.benchmark import FULL_PRECISION
from lesiontk.bench.side_by_side import EnginePair, SideBySide
from lesiontk.errors import UsageError
from lesiontk.evaluate.bootstrap import Estimate
from lesiontk.report.formatting import (
    DASH,
    EstimateText,
    format_bytes,
    format_latency,
    format_level,
    points_estimate,
    share_estimate,
)
from lesiontk.report.render import make_environment
from lesiontk.report.result_table import make_table
from lesiontk.report.wording import name_metric

COLUMNS = ("", "a", "b", "b − a")
SUFFIXES = (".html", ".md", ".json")


@dataclass(frozen=True, slots=True)
class ComparedRow:
    """One figure of an engine: in a, in b, and the difference."""

    name: str
    a: EstimateText
    b: EstimateText
    difference: EstimateText


def list_compared_rows(pair: EnginePair) -> list[ComparedRow]:
    """Return the figures of an engine in both benchmarks, as text."""
    a, b = pair.a, pair.b
    facts = [
        (
            "test images",
            f"{a.n} of {a.lesions} lesions",
            f"{b.n} of {b.lesions} lesions",
            DASH if pair.changed is None else f"{pair.changed} change class",
        ),
        (
            "median latency",
            format_latency(a.median_ms),
            format_latency(b.median_ms),
            DASH if pair.speedup is None else f"{pair.speedup:.2f}× the speed",
        ),
        (
            "size",
            format_bytes(a.size_bytes),
            format_bytes(b.size_bytes),
            f"{b.size_bytes / a.size_bytes:.2f}× the size",
        ),
    ]
    rows = [
        ComparedRow(name, *(EstimateText(text, "") for text in texts)) for name, *texts in facts
    ]
    for metric, score in a.scores.items():
        change = points_estimate(pair.differences.get(metric))
        unit = " points" if change.value != DASH else ""
        rows.append(
            ComparedRow(
                name_metric(metric),
                share_estimate(score),
                share_estimate(b.scores.get(metric)),
                EstimateText(change.value + unit, change.interval),
            )
        )
    return rows


def _join(text: EstimateText) -> str:
    return f"{text.value} ({text.interval})" if text.interval else text.value


def find_headline(found: SideBySide) -> EnginePair:
    """Return the engine of reduced precision that is the fastest in b, else the fastest."""
    return min(
        found.engines,
        key=lambda pair: (pair.engine.endswith(FULL_PRECISION), pair.b.median_ms or math.inf),
    )


def describe_verdict(found: SideBySide) -> str:
    """Return the result of the most relevant engine in one sentence."""
    pair = find_headline(found)
    change = pair.differences.get("balanced_accuracy", Estimate(None, None, None))
    if change.value is None:
        return f"{pair.engine}: the scores of b are not compared with those of a."
    if change.low is not None and change.low > 0:
        words = "is higher than in a"
    elif change.high is not None and change.high < 0:
        words = "is lower than in a"
    else:
        words = "is not shown to differ from a"
    return (
        f"{pair.engine}: balanced accuracy in b {words}, by {_join(points_estimate(change))} "
        "points."
    )


def list_notes(found: SideBySide) -> list[str]:
    """Return how to read the comparison, as sentences."""
    machine = "the same machine" if found.same_machine else "different machines"
    notes = [
        found.reason,
        f"Latencies are of separate runs on {machine}: their ratio has no interval. Intervals are "
        f"at {format_level(found.confidence)}.",
    ]
    for side, names in (("a", found.only_a), ("b", found.only_b)):
        if names:
            notes.append(f"Only in {side}: {', '.join(names)}.")
    return notes


def write_comparison(found: SideBySide, path: Path) -> None:
    """Write the comparison as ``.html``, ``.md`` or ``.json``. Raises `UsageError` for others."""
    writers = {".html": html_from_comparison, ".md": markdown_from_comparison, ".json": _dump}
    if path.suffix not in writers:
        raise UsageError(f"the file is {path}; expected a name that ends in {', '.join(SUFFIXES)}.")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(writers[path.suffix](found), encoding="utf-8")


def _dump(found: SideBySide) -> str:
    return json.dumps(found.to_document(), indent=1, allow_nan=False) + "\n"


def markdown_from_comparison(found: SideBySide) -> str:
    """Return the comparison as Markdown."""
    parts = [
        f"# {found.recipe_a} and {found.recipe_b}",
        f"**{describe_verdict(found)}** a is {found.a}, b is {found.b}.",
        *list_notes(found),
    ]
    for pair in found.engines:
        parts += [f"## {pair.engine}", make_table(COLUMNS, list_compared_cells(pair)).strip()]
    return "\n\n".join(parts) + "\n"


def list_compared_cells(pair: EnginePair) -> list[Sequence[str]]:
    """Return the cells of `COLUMNS` for each figure."""
    return [
        (row.name, _join(row.a), _join(row.b), _join(row.difference))
        for row in list_compared_rows(pair)
    ]


def html_from_comparison(found: SideBySide) -> str:
    """Return the comparison as one self-contained HTML file; all text is escaped."""
    template = make_environment().get_template("side_by_side.html.j2")
    return template.render(
        found=found,
        verdict=describe_verdict(found),
        notes=list_notes(found),
        engines={pair.engine: list_compared_rows(pair) for pair in found.engines},
    )
