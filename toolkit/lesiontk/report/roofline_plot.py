"""The roofline: operations per second of each engine under the measured peak of the machine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from lesiontk.bench.peak import Peak
from lesiontk.bench.roofline import RooflinePoint
from lesiontk.report.drawing import GREY, MarkerStyle, SvgFigure, draw_figure
from lesiontk.report.formatting import format_number, format_percent


def plot_roofline(
    points: Sequence[RooflinePoint], peak: Peak, styles: Mapping[str, MarkerStyle]
) -> SvgFigure:
    """Draw engines by operations per byte and 10^9 operations per second, below both roofs."""

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        ridges = [peak.float32_gops / peak.bandwidth_gbs, peak.int8_gops / peak.bandwidth_gbs]
        least = min(ridges + [point.intensity for point in points]) / 3
        most = max(ridges + [point.intensity for point in points]) * 3
        x = np.geomspace(least, most, 200)
        for integer, name in ((False, "float32"), (True, "int8")):
            roof = [peak.find_roof(value, integer=integer) for value in x]
            axes.plot(x, roof, "-" if integer else "--", color=GREY, linewidth=1.6)
            axes.annotate(
                f"{name} peak, {format_number(peak.find_gops(integer=integer))} GOP/s",
                (most, roof[-1]), xytext=(-2, 4), textcoords="offset points", ha="right",
                color="#374151", fontsize=9,
            )  # fmt: skip
        for point in points:
            style = styles[point.name]
            axes.plot(
                point.intensity, point.gops, style.marker, color=style.colour,
                markerfacecolor=style.face, markersize=8, markeredgewidth=1.4, label=point.name,
            )  # fmt: skip
        axes.set_xscale("log")
        axes.set_yscale("log")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(lambda value, _: f"{value:g}")
            axis.set_minor_formatter("")
        axes.set_xlim(least, most)
        axes.set_xlabel("operations per byte of weights and activations")
        axes.set_ylabel("GOP/s")
        axes.grid(True)
        axes.legend(loc="lower right")
        figure.subplots_adjust(left=0.09, right=0.97, bottom=0.14, top=0.96)

    words = "; ".join(
        f"{point.name}: {format_number(point.gops)} GOP/s, {format_percent(point.share)} of the "
        "attainable"
        for point in points
    )
    return draw_figure(draw, 4.2, f"Roofline. {words}.")
