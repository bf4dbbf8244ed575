"""The figures of a search: Pareto front, parallel coordinates, importance of each key."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator

from lesiontk.report.drawing import BLUE, GREY, ORANGE, VERMILLION, SvgFigure, draw_figure
from lesiontk.report.formatting import format_number, format_plain
from lesiontk.report.pareto_plot import choose_log_ticks
from lesiontk.report.search_words import name_figure, name_key
from lesiontk.search.result import SearchResult, list_measured
from lesiontk.search.space import show_setting
from lesiontk.search.trial_record import COMPLETE, TrialRecord

LATENCY, SIZE = "p90_ms", "size_mb"
LOGARITHMIC = 20.0
"""An axis is logarithmic if its largest value is so many times the smallest."""
LONGEST = 18
"""Letters of a value beside an axis."""


def plot_front(result: SearchResult) -> SvgFigure | None:
    """Draw the first objective over the second, or over latency; None without engines."""
    trials = list(list_measured(result.trials).values())
    first = result.objectives[0]
    others = [*result.objectives[1:], LATENCY, SIZE]
    second = next(
        (name for name in others if name != first and all(_has(t, name) for t in trials)), None
    )
    if not trials or second is None:
        return None

    def place(trial: TrialRecord) -> tuple[float, float]:
        assert trial.figures is not None
        return trial.figures.value(second), trial.figures.value(first)

    front = [trial for trial in trials if trial.number in result.front]

    def draw(figure: Figure) -> None:
        figure.subplots_adjust(left=0.085, right=0.985, bottom=0.125, top=0.91)
        axes = figure.subplots()
        kinds = (
            ("does not meet the constraints", "x", GREY,
             [t for t in trials if t.state != COMPLETE]),
            ("meets the constraints", "o", BLUE,
             [t for t in trials if t.state == COMPLETE and t not in front]),
            ("on the front, with its trial", "D", VERMILLION, front),
        )  # fmt: skip
        for label, marker, colour, group in kinds:
            if group:
                xs, ys = zip(*map(place, group), strict=True)
                axes.plot(xs, ys, marker, color=colour, markersize=7, label=label, linestyle="")
        noisy = [t for t in trials if t.figures is not None and t.figures.noise]
        if noisy and second in (LATENCY, "median_ms"):
            xs, ys = zip(*map(place, noisy), strict=True)
            axes.plot(xs, ys, "o", color=ORANGE, markersize=13, markerfacecolor="none",
                      label="noisy latency", linestyle="")  # fmt: skip
        if len(front) > 1:
            xs, ys = zip(*sorted(map(place, front)), strict=True)
            axes.plot(xs, ys, color=VERMILLION, linewidth=1, alpha=0.5)
        for trial in front:
            axes.annotate(f"{trial.number}", place(trial), (7, 5), textcoords="offset points")
        values = [place(trial)[0] for trial in trials]
        axes.margins(0.06)
        if min(values) > 0 and max(values) > LOGARITHMIC * min(values):
            axes.set_xscale("log")
            axes.xaxis.set_major_locator(FixedLocator(choose_log_ticks(*axes.get_xlim())))
            axes.xaxis.set_minor_locator(NullLocator())
            axes.xaxis.set_major_formatter(lambda value, _: format_plain(value))
        axes.set_xlabel(name_figure(second))
        axes.set_ylabel(name_figure(first))
        axes.grid(True)
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=4, borderaxespad=0.2)

    words = "; ".join(
        f"trial {t.number}: {format_number(place(t)[0])}, {format_number(place(t)[1])}"
        for t in front
    )
    return draw_figure(
        draw,
        4.8,
        f"{name_figure(first)} over {name_figure(second)} of {len(trials)} engines. On the "
        f"front: {words or 'none'}.",
    )


@dataclass(frozen=True, slots=True)
class _Axis:
    """An axis of parallel coordinates: trial -> place 0..1, and the labels of places."""

    name: str
    places: Mapping[int, float]
    labels: Mapping[float, str]


def plot_parallel(result: SearchResult) -> SvgFigure | None:
    """Draw a line for each engine over its values and its figures; None without engines."""
    trials = list(list_measured(result.trials).values())
    if not trials:
        return None
    axes_of = [_axis_of_key(key, trials) for key in result.varied]
    axes_of += [
        _axis_of_figure(name, trials)
        for name in result.figure_names
        if all(_has(trial, name) for trial in trials)
    ]

    def draw(figure: Figure) -> None:
        figure.subplots_adjust(left=0.09, right=0.92, bottom=0.23, top=0.96)
        axes = figure.subplots()
        for trial in sorted(trials, key=lambda t: (t.number in result.front, t.state == COMPLETE)):
            known = [(x, a.places[trial.number]) for x, a in enumerate(axes_of)
                     if trial.number in a.places]  # fmt: skip
            xs, ys = zip(*known, strict=True)
            on_front = trial.number in result.front
            colour = VERMILLION if on_front else BLUE if trial.state == COMPLETE else GREY
            axes.plot(xs, ys, color=colour, linewidth=2.2 if on_front else 1,
                      alpha=1 if on_front else 0.45)  # fmt: skip
        for x, axis in enumerate(axes_of):
            axes.axvline(x, color="#9aa1ab", linewidth=1)
            for y, text in axis.labels.items():
                axes.annotate(
                    text, (x, y), (4, 0), textcoords="offset points", fontsize=8, va="center",
                    bbox={"boxstyle": "square,pad=0.1", "facecolor": "white", "edgecolor": "none",
                          "alpha": 0.75},
                )  # fmt: skip
        axes.set_xticks(range(len(axes_of)), [axis.name for axis in axes_of], fontsize=8,
                        rotation=18, ha="right")  # fmt: skip
        axes.set_yticks([])
        axes.set_xlim(-0.1, len(axes_of) - 1 + 0.3)
        axes.set_ylim(-0.06, 1.06)
        for side in ("left", "bottom"):
            axes.spines[side].set_visible(False)

    return draw_figure(
        draw,
        4.4,
        f"Parallel coordinates of {len(trials)} engines over "
        f"{', '.join(axis.name for axis in axes_of)}. The table of trials has the values.",
    )


def plot_importance(result: SearchResult) -> SvgFigure | None:
    """Draw each key's share of the variance of each objective; None where it is unknown."""
    if not result.importance:
        return None
    rows = [
        (objective, key, share)
        for objective, shares in result.importance.items()
        for key, share in shares.items()
    ]

    def draw(figure: Figure) -> None:
        inches = figure.get_figheight()
        figure.subplots_adjust(left=0.42, right=0.95, bottom=0.5 / inches, top=1 - 0.15 / inches)
        axes = figure.subplots()
        places = range(len(rows) - 1, -1, -1)
        colours = (BLUE, VERMILLION, ORANGE, GREY)
        order = list(result.importance)
        axes.barh(
            places, [row[2] for row in rows], 0.7, linewidth=0,
            color=[colours[order.index(row[0]) % 4] for row in rows],
        )  # fmt: skip
        for y, row in zip(places, rows, strict=True):
            axes.annotate(f"{100 * row[2]:.0f} %", (row[2], y), (4, 0), va="center",
                          textcoords="offset points", fontsize=8)  # fmt: skip
        axes.set_yticks(places, [f"{name_key(k)}, for {name_figure(o)}" for o, k, _ in rows],
                        fontsize=8)  # fmt: skip
        axes.set_xlim(0, 1.05)
        axes.set_xlabel("share of the variance")
        axes.xaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f} %")

    words = "; ".join(f"{key} for {objective}: {share:.0%}" for objective, key, share in rows)
    return draw_figure(draw, 0.9 + 0.27 * len(rows), f"Importance of each choice. {words}.")


def _axis_of_key(key: str, trials: Sequence[TrialRecord]) -> _Axis:
    found = {t.number: t.assignment[key] for t in trials if key in t.assignment}
    values = list(found.values())
    if all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
        return _axis_of_numbers(name_key(key), found)
    texts = {number: json.dumps(value, sort_keys=True) for number, value in found.items()}
    order = sorted(set(texts.values()))
    places = {text: _spread(i, len(order)) for i, text in enumerate(order)}
    shown = {places[text]: show_setting(json.loads(text)) for text in order}
    labels = {y: s if len(s) <= LONGEST else f"{s[: LONGEST - 1]}…" for y, s in shown.items()}
    return _Axis(name_key(key), {n: places[text] for n, text in texts.items()}, labels)


def _axis_of_figure(name: str, trials: Sequence[TrialRecord]) -> _Axis:
    found = {t.number: t.figures.value(name) for t in trials if t.figures is not None}
    return _axis_of_numbers(name_figure(name), found)


def _axis_of_numbers(name: str, found: Mapping[int, Any]) -> _Axis:
    low, high = min(found.values(), default=0), max(found.values(), default=0)
    width = high - low or 1
    places = {number: (value - low) / width if high > low else 0.5
              for number, value in found.items()}  # fmt: skip
    labels = {0.0: format_plain(low), 1.0: format_plain(high)}
    return _Axis(name, places, labels if high > low else {0.5: format_plain(low)})


def _spread(index: int, count: int) -> float:
    return index / (count - 1) if count > 1 else 0.5


def _has(trial: TrialRecord, metric: str) -> bool:
    return trial.figures is not None and metric in trial.figures.values
