"""What int8 does to each layer alone, as bars."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from lesiontk.report.drawing import Look, Picture, draw_picture
from lesiontk.report.formatting import format_number
from lesiontk.report.wording import shorten_name

MOST = 24
"""Bars of a figure; the others are in the table alone."""


def plot_sensitivity(
    rows: Sequence[Mapping[str, Any]], kept: Collection[str], backend: str, look: Look
) -> Picture:
    """Draw the mean drift of the most sensitive of `rows`, which come in that order.

    Bars of the layers `kept` in float are hollow.
    """
    shown = list(rows[:MOST])

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for number, row in enumerate(shown):
            hollow = row["layer"] in kept
            axes.barh(-number, row["mean_drift"], 0.62, color="white" if hollow else look.colour,
                      edgecolor=look.colour, linewidth=1.2)  # fmt: skip
        axes.set_yticks([-n for n in range(len(shown))], [shorten_name(r["layer"]) for r in shown])
        axes.tick_params(axis="y", length=0, labelsize=8)
        axes.set_ylim(-len(shown) + 0.4, 0.6)
        axes.set_xlabel("mean change of a probability, with this layer alone in int8")
        axes.grid(True, axis="x")
        inches = figure.get_figheight()
        figure.subplots_adjust(left=0.36, right=0.985, bottom=0.5 / inches, top=1 - 0.1 / inches)

    words = f"The most sensitive is {shown[0]['layer']}: {format_number(shown[0]['mean_drift'])}."
    height = 0.22 * len(shown) + 0.6
    return draw_picture(draw, height, f"Sensitivity of the layers on {backend} to int8. {words}")
