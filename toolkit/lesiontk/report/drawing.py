"""Self-contained figures: one style, the same bytes for the same data."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from lesiontk.bench.benchmark import FULL_PRECISION
from lesiontk.stage import EngineName

POINTS_PER_INCH = 72
WIDTH = 10.0  # inches; about the width of the report's text

# Okabe & Ito's colours, safe for colour-blind readers.
BLACK, BLUE, VERMILLION, GREEN = "#1a1a1a", "#0072B2", "#D55E00", "#009E73"
PURPLE, SKY, ORANGE, GREY = "#CC79A7", "#56B4E9", "#E69F00", "#6b7280"
BACKEND_COLOURS = {"keras": BLACK, "tflite": BLUE, "onnx": VERMILLION, "tensorrt": GREEN}
OTHER_COLOURS = (PURPLE, SKY, ORANGE, GREY)
PRECISION_MARKERS = {
    "float32": "o",
    "float16": "s",
    "int8": "D",
    "dynamic_int8": "v",
    "int16x8": "p",
}
OTHER_MARKER = "^"
# Side over the diameter of a circle of the same area, and half the width over that side.
SIDE_FACTORS = {"o": 1.0, "s": 0.886, "D": 0.886, "^": 1.253, "v": 1.253, "p": 1.149}
REACH_FACTORS = {"o": 0.5, "s": 0.5, "D": 0.707, "^": 0.5, "v": 0.5, "p": 0.5}

STYLE = {
    "svg.fonttype": "path",
    "text.hinting": "no_hinting",  # otherwise texts are measured narrower than SVG draws them
    "svg.hashsalt": "lesiontk",
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "axes.edgecolor": "#9aa1ab",
    "axes.labelcolor": "#374151",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "text.color": "#1f2937",
    "xtick.color": "#4b5563",
    "ytick.color": "#4b5563",
    "grid.color": "#e5e7eb",
    "grid.linewidth": 0.8,
    "legend.frameon": False,
    "legend.fontsize": 9,
}


@dataclass(frozen=True, slots=True)
class SvgFigure:
    """A figure as a ``data:`` URL, its alternative text, and its size in CSS pixels."""

    source: str
    alternative: str
    width: int
    height: int

    @property
    def content(self) -> bytes:
        """The file in the URL."""
        return base64.b64decode(self.source.partition(",")[2])


@dataclass(frozen=True, slots=True)
class MarkerStyle:
    """The style of an engine in every figure: colour for the back end, shape for the precision."""

    colour: str
    marker: str
    face: str
    dashes: str


def style_of_engines(engines: Sequence[str]) -> dict[str, MarkerStyle]:
    """Return the style of each engine; hollow markers and dashed lines are full precision."""
    names = list(map(EngineName, engines))
    parts = {name: name.target.partition(":") for name in names}
    unknown = [backend for backend, _, _ in parts.values() if backend not in BACKEND_COLOURS]
    extra = {name: OTHER_COLOURS[i % 4] for i, name in enumerate(dict.fromkeys(unknown))}
    styles: dict[str, MarkerStyle] = {}
    for name, (backend, _, precision) in parts.items():
        colour = {**BACKEND_COLOURS, **extra}[backend]
        full = precision == FULL_PRECISION
        styles[name] = MarkerStyle(
            colour=colour,
            marker=PRECISION_MARKERS.get(precision, OTHER_MARKER),
            face="white" if full else colour,
            dashes="--" if full else "-",
        )
    return styles


def draw_figure(draw: Callable[[Figure], None], height: float, alternative: str) -> SvgFigure:
    """Return the figure of `height` inches that `draw` draws, as SVG.

    A user's matplotlibrc has no effect; dates and ids are fixed.
    """
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(STYLE)
        figure = Figure(figsize=(WIDTH, height), dpi=POINTS_PER_INCH)
        draw(figure)
        stream = io.BytesIO()
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(stream, format="svg", dpi=POINTS_PER_INCH, metadata=nothing)
    encoded = base64.b64encode(stream.getvalue()).decode("ascii")
    return SvgFigure(
        source=f"data:image/svg+xml;base64,{encoded}",
        alternative=alternative,
        width=round(WIDTH * 96),
        height=round(height * 96),
    )


def show_percent(axis: Any) -> None:
    """Label an axis of shares 0..1 in percent."""
    axis.set_major_formatter(lambda value, _: f"{100 * value:.4g} %")


def draw_error_bar(
    axes: Any,
    x: float,
    y: float,
    interval: tuple[float, float] | None,
    style: MarkerStyle,
    **options: Any,
) -> None:
    """Draw one marker; `interval` contains the ends of its whisker along ``along``, x or y."""
    along, size, label = options["along"], options["size"], options.get("label")
    if interval is not None:
        ends = (interval, (y, y)) if along == "x" else ((x, x), interval)
        cap = "|" if along == "x" else "_"
        axes.plot(*ends, cap, linestyle="-", color=style.colour, linewidth=1.4, alpha=0.6)
    axes.plot(
        x, y, style.marker, color=style.colour, markerfacecolor=style.face, markersize=size,
        markeredgewidth=1.4, label=label, zorder=3,
    )  # fmt: skip
