"""The channels of each layer before and after pruning, as bars."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure

from lesiontk.compress.layers import LayerWidths
from lesiontk.report.drawing import BLUE, SKY, SvgFigure, draw_figure


def plot_widths(rows: Sequence[LayerWidths]) -> SvgFigure:
    """Draw the channels of each layer, in the network's order, before and after a pruning."""

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        places = range(len(rows))
        axes.bar(places, [row.channels for row in rows], 0.8, color=SKY, alpha=0.45, linewidth=0)
        axes.bar(places, [row.kept for row in rows], 0.8, color=BLUE, linewidth=0)
        axes.set_xlim(-0.6, len(rows) - 0.4)
        axes.set_ylabel("channels")
        axes.set_xlabel("layers with weights, from input to output")
        if len(rows) <= 24:
            names = [row.layer for row in rows]
            axes.set_xticks(places, names, rotation=60, ha="right", fontsize=8)
        axes.grid(True, axis="y")
        inches = figure.get_figheight()
        bottom = (1.5 if len(rows) <= 24 else 0.5) / inches
        figure.subplots_adjust(left=0.07, right=0.985, bottom=bottom, top=1 - 0.1 / inches)

    share = sum(row.kept for row in rows) / sum(row.channels for row in rows)
    words = f"{share:.0%} of {sum(row.channels for row in rows)} channels remain."
    return draw_figure(draw, 3.6, f"Channels of {len(rows)} layers before and after. {words}")
