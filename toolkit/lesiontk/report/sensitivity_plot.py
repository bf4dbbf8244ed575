"""The effect of int8 on each layer alone, as bars."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from matplotlib.figure import Figure

from lesiontk.compress.sensitivity import LayerSensitivity
from lesiontk.report.drawing import GREY, MarkerStyle, SvgFigure, draw_figure
from lesiontk.report.formatting import format_number
from lesiontk.report.wording import shorten_name

MOST = 24
"""Number of bars in a panel; the others are only in the table."""

PANELS = {
    "mean_drift": "mean change of a probability",
    "balanced_accuracy": "change of balanced accuracy",
}
"""Column -> the title of its panel."""


def plot_sensitivity(
    rows: Sequence[LayerSensitivity], kept: Collection[str], backend: str, style: MarkerStyle
) -> SvgFigure:
    """Draw mean drift and change of balanced accuracy of the most sensitive of `rows`.

    These come in that order, by drift. Bars of the layers `kept` in float are hollow.
    """
    shown = list(rows[:MOST])

    def draw(figure: Figure) -> None:
        both = figure.subplots(1, 2, sharey=True)
        both[
            1
        ].use_sticky_edges = False  # otherwise zero is the panel's edge if no value is positive
        for axes, (name, label) in zip(both, PANELS.items(), strict=True):
            for number, row in enumerate(shown):
                hollow = row.layer in kept
                axes.barh(
                    -number,
                    getattr(row, name),
                    0.62,
                    color="white" if hollow else style.colour,
                    edgecolor=style.colour,
                    linewidth=1.2,
                )
            axes.tick_params(axis="y", length=0, labelsize=8)
            axes.tick_params(axis="x", labelsize=9)
            axes.locator_params(axis="x", nbins=4)
            axes.set_xlabel(label)
            axes.grid(True, axis="x")
        both[0].set_yticks([-n for n in range(len(shown))], [shorten_name(r.layer) for r in shown])
        both[0].set_ylim(-len(shown) + 0.4, 0.6)
        both[1].axvline(0, color=GREY, linewidth=1.4, zorder=3)
        inches = figure.get_figheight()
        figure.subplots_adjust(
            left=0.34, right=0.975, bottom=0.5 / inches, top=1 - 0.1 / inches, wspace=0.2
        )

    first = shown[0]
    words = (
        f"The most sensitive is {first.layer}: {format_number(first.mean_drift)}, and "
        f"balanced accuracy changes by {format_number(first.balanced_accuracy)}."
    )
    height = 0.22 * len(shown) + 0.6
    return draw_figure(draw, height, f"Sensitivity of the layers on {backend} to int8. {words}")
