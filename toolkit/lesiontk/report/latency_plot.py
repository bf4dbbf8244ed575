"""The latencies of each engine: percentiles of the queries, and the median of each round."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from lesiontk.bench.timing import Latency
from lesiontk.evaluate.latency_rounds import Rounds
from lesiontk.report.drawing import MarkerStyle, SvgFigure, draw_figure
from lesiontk.report.formatting import format_latency

FAR = 8.0
"""Axes that span more than this factor are logarithmic."""


def plot_latency(latencies: Mapping[str, Rounds], styles: Mapping[str, MarkerStyle]) -> SvgFigure:
    """Draw the raw ms of each engine, by round; a row each, in the order of `latencies`."""
    found = {
        name: Latency.of([value for samples in rounds for value in samples])
        for name, rounds in latencies.items()
    }

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for row, (name, rounds) in enumerate(latencies.items()):
            style, latency = styles[name], found[name]
            ends = [value for value in (latency.p10, latency.p90) if value is not None]
            far = [value for value in (latency.p90, latency.p99) if value is not None]
            axes.plot(far, [-row] * len(far), "-", color=style.colour, linewidth=1)
            axes.plot(ends, [-row] * len(ends), "-", color=style.colour, linewidth=4, alpha=0.5)
            medians = np.median(rounds, axis=1)
            heights = -row - 0.28 + 0.12 * np.linspace(-1, 1, len(medians))
            axes.plot(medians, heights, "o", color=style.colour, markersize=3, alpha=0.5)
            axes.plot(
                latency.median, -row, style.marker, color=style.colour,
                markerfacecolor=style.face, markersize=8, markeredgewidth=1.4, zorder=3,
            )  # fmt: skip
        lowest = min(latency.median for latency in found.values())
        highest = max(latency.p99 or latency.median for latency in found.values())
        if highest > FAR * lowest:
            axes.set_xscale("log")
            axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
            axes.xaxis.set_minor_formatter("")
        else:
            axes.set_xlim(left=0)
        axes.set_yticks([-row for row in range(len(found))], list(found))
        axes.set_ylim(-len(found) + 0.4, 0.6)
        axes.tick_params(axis="y", length=0)
        axes.set_xlabel("ms for one image")
        axes.grid(True, axis="x")
        inches = figure.get_figheight()
        figure.subplots_adjust(left=0.2, right=0.97, bottom=0.55 / inches, top=1 - 0.1 / inches)

    words = "; ".join(
        f"{name}: median {format_latency(latency.median)}, 90th percentile "
        f"{format_latency(latency.p90)}, n = {latency.n}"
        for name, latency in found.items()
    )
    return draw_figure(draw, 0.5 * len(found) + 0.7, f"Latency. {words}.")
