"""The ranges of an engine's widest activations as bars."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure

from lesiontk.backends.quantized_tensors import TensorRow
from lesiontk.report.drawing import GREY, MarkerStyle, SvgFigure, draw_figure
from lesiontk.report.formatting import format_plain
from lesiontk.report.wording import shorten_name

MOST = 24
"""Number of bars in a figure; narrower ranges are only in the table."""


def plot_ranges(rows: Sequence[TensorRow], target: str, style: MarkerStyle) -> SvgFigure:
    """Draw the representable ranges of the widest of `rows` as bars, and the observed ones as
    lines.

    The axis is linear to 1 and logarithmic beyond, because the widths of one network's tensors
    differ by orders of magnitude.
    """
    shown = list(rows[:MOST])

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for number, row in enumerate(shown):
            axes.barh(-number, row.high - row.low, 0.62, row.low, color=style.colour, alpha=0.35,
                      linewidth=0)  # fmt: skip
            if row.minimum is not None and row.maximum is not None:
                axes.plot([row.minimum, row.maximum], [-number, -number], "|-", color=style.colour,
                          linewidth=1.6, markersize=7)  # fmt: skip
        axes.axvline(0, color=GREY, linewidth=0.8)
        axes.set_xscale("symlog", linthresh=1.0)
        axes.set_yticks([-n for n in range(len(shown))], [shorten_name(r.tensor) for r in shown])
        axes.tick_params(axis="y", length=0, labelsize=8)
        axes.set_ylim(-len(shown) + 0.4, 0.6)
        axes.set_xlabel("value: linear from −1 to 1, logarithmic beyond")
        axes.xaxis.set_major_formatter(lambda value, _: format_plain(value))
        axes.grid(True, axis="x")
        inches = figure.get_figheight()
        figure.subplots_adjust(left=0.36, right=0.985, bottom=0.5 / inches, top=1 - 0.1 / inches)

    widest = shown[0]
    words = (
        f"The widest is {widest.tensor}: {format_plain(widest.low)} to "
        f"{format_plain(widest.high)}, in steps of {format_plain(widest.scale)}."
    )
    height = 0.22 * len(shown) + 0.6
    return draw_figure(draw, height, f"Ranges of the activations of {target}. {words}")
