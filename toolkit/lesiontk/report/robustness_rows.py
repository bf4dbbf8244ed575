"""The results on corrupted images in words, and as the rows of a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lesiontk.evaluate.bootstrap import Estimate
from lesiontk.evaluate.robustness import (
    ACCURACY,
    COMPARED,
    CorruptedResult,
    CorruptionLoss,
    Robustness,
)
from lesiontk.report.formatting import count_things, format_count, format_points, points_estimate

COLUMNS = ("corruption", "strength", "parent", "engine", "engine − parent", "sensitivity",
           "specificity")  # fmt: skip
FULL_SHADE = 0.3
"""The loss that gets the darkest shade: 30 points."""


MOST_NAMED = 6


@dataclass(frozen=True, slots=True)
class HeatCell:
    """A cell of the heat table: the estimate in points, its shade 0..1, and what it shows."""

    estimate: Estimate
    shade: float
    shown: bool


def describe_robustness(found: Robustness) -> str:
    """Return the answer in sentences: does compression cost more on corrupted images?"""
    overall = found.overall[ACCURACY]
    count = len(found.results)
    parent, engine = (format_mean(found.results, ACCURACY, who) for who in ("parent", "engine"))
    if overall.value is None or overall.low is None or overall.high is None:
        answer = f"These images do not show whether {found.target} loses more than its parent"
    elif overall.high < 0:
        answer = f"{found.target} loses more on corrupted images than its parent"
    elif overall.low > 0:
        answer = f"{found.target} loses less on corrupted images than its parent"
    else:
        answer = f"{found.target} is not shown to lose more on corrupted images than its parent"
    excess = points_estimate(overall)
    interval = f" ({excess.interval})" if excess.interval else ""
    return (
        f"{answer}: on average over {count} corruptions, accuracy changes by "
        f"{parent} points for {found.parent_name} and by {engine} "
        f"for {found.target}, a difference of {excess.value}{interval}. "
        f"{describe_images(found)}"
    )


def describe_images(found: Robustness) -> str:
    """Return which images were used, as a sentence."""
    some = "all" if found.n == found.available else "balanced over the classes, of"
    return (
        f"{count_things(found.n, 'test image')} of {count_things(found.lesions, 'lesion')}, {some} "
        f"{format_count(found.available)}."
    )


def describe_shown(found: Robustness) -> str:
    """Return how many corruptions show a loss beyond the parent's, and how many do by chance."""
    shown, count = found.list_shown(), len(found.results)
    names = ", ".join(f"{result.corruption} {result.severity}" for result in shown)
    listed = f" ({names})" if 0 < len(shown) <= MOST_NAMED else ""
    chance = count * (1 - found.confidence) / 2
    return (
        f"Under {len(shown)} of {count} corruptions{listed} the engine is shown to lose more; "
        f"without any effect, about {chance:.1g} of {count} would be by chance."
    )


def mean_change(estimates: Sequence[Estimate]) -> float | None:
    """Return the mean of the known values."""
    values = [estimate.value for estimate in estimates if estimate.value is not None]
    return sum(values) / len(values) if values else None


def format_mean(results: Sequence[CorruptedResult], metric: str, who: str) -> str:
    """Return the mean change of the ``parent`` or the ``engine`` over the results, in points."""
    return format_points(mean_change([getattr(r.losses[metric], who) for r in results]))


def list_heat_cells(result: CorruptedResult) -> dict[str, list[HeatCell]]:
    """Return metric -> the cells of parent, engine and engine - parent."""
    return {metric: _heat(result.losses[metric]) for metric in COMPARED}


def _heat(loss: CorruptionLoss) -> list[HeatCell]:
    cells = []
    for estimate in (loss.parent, loss.engine, loss.excess):
        lost = max(0.0, -(estimate.value or 0.0))
        shown = estimate.high is not None and estimate.high < 0
        cells.append(HeatCell(estimate, min(1.0, lost / FULL_SHADE), shown))
    return cells


def list_robustness_cells(found: Robustness) -> list[list[str]]:
    """Return the cells of `COLUMNS` for each corruption, in percentage points."""

    def show(estimate: Estimate) -> str:
        text = points_estimate(estimate)
        return f"{text.value} ({text.interval})" if text.interval else text.value

    return [
        [
            f"{result.corruption} {result.severity}",
            result.strength,
            format_points(result.losses[ACCURACY].parent.value),
            format_points(result.losses[ACCURACY].engine.value),
            *(show(result.losses[metric].excess) for metric in COMPARED),
        ]
        for result in found.results
    ]
