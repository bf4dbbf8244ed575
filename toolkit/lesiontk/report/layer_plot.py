"""The latency of each layer of an engine, the slowest first."""

from __future__ import annotations

from matplotlib.figure import Figure

from lesiontk.bench.layer_profile import LayerProfile
from lesiontk.report.drawing import BLACK, MarkerStyle, SvgFigure, draw_figure
from lesiontk.report.formatting import format_latency, format_percent
from lesiontk.report.wording import shorten_name

MOST = 24
"""Number of bars; the others are only in the table."""


def plot_layers(profile: LayerProfile, style: MarkerStyle) -> SvgFigure:
    """Draw the medians of the slowest layers with their intervals."""
    shown = profile.layers[:MOST]

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for row, layer in enumerate(shown):
            axes.barh(-row, layer.median_ms, 0.62, color=style.colour, alpha=0.7)
            axes.plot([layer.low_ms, layer.high_ms], [-row, -row], "-", color=BLACK, linewidth=1.2)
            axes.annotate(
                format_percent(layer.share), (max(layer.high_ms, layer.median_ms), -row),
                xytext=(4, 0), textcoords="offset points", va="center", fontsize=8,
            )  # fmt: skip
        axes.set_yticks([-n for n in range(len(shown))], [shorten_name(r.layer) for r in shown])
        axes.set_ylim(-len(shown) + 0.4, 0.6)
        axes.set_xlim(0, 1.12 * max(layer.high_ms for layer in shown))
        axes.tick_params(axis="y", length=0, labelsize=8)
        axes.set_xlabel("ms for one image")
        axes.grid(True, axis="x")
        inches = figure.get_figheight()
        figure.subplots_adjust(left=0.3, right=0.97, bottom=0.55 / inches, top=1 - 0.1 / inches)

    first = shown[0]
    return draw_figure(
        draw,
        0.22 * len(shown) + 0.75,
        f"Latency of the layers of {profile.engine}. The slowest is {first.layer}: "
        f"{format_latency(first.median_ms)}, {format_percent(first.share)} of all layers.",
    )
