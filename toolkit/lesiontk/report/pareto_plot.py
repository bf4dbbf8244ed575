"""The accuracy-latency plot: every engine, its interval, its size, and the Pareto front."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator

from lesiontk.report.drawing import (
    GREY,
    REACH_FACTORS,
    SIDE_FACTORS,
    MarkerStyle,
    SvgFigure,
    draw_error_bar,
    draw_figure,
    show_percent,
)
from lesiontk.report.formatting import (
    format_bytes,
    format_latency,
    format_percent,
    format_plain,
)
from lesiontk.report.pareto import (
    Box,
    EnginePoint,
    find_pareto_front,
    needs_leader,
    place_labels,
)

LARGEST_MARKER = 22.0  # diameter in points of the largest engine's marker
SMALLEST_MARKER = 4.0


def plot_pareto(points: Sequence[EnginePoint], styles: Mapping[str, MarkerStyle]) -> SvgFigure:
    """Draw balanced accuracy over median latency; area is file size, the line the Pareto front."""
    front = find_pareto_front(points)
    largest = max(point.size_bytes for point in points)

    def draw(figure: Figure) -> None:
        figure.subplots_adjust(left=0.075, right=0.985, bottom=0.105, top=0.975)
        axes = figure.subplots()
        _limit_pareto(axes, points)
        _draw_front(axes, [points[index] for index in front])
        reaches = []
        for point in points:
            marker = styles[point.name].marker
            circle = max(SMALLEST_MARKER, LARGEST_MARKER * (point.size_bytes / largest) ** 0.5)
            size = circle * SIDE_FACTORS[marker]
            interval = None if point.low is None or point.high is None else (point.low, point.high)
            draw_error_bar(
                axes, point.latency_ms, point.score, interval, styles[point.name],
                along="y", size=size,
            )  # fmt: skip
            reaches.append(size * REACH_FACTORS[marker] + 1)
        _label_points(axes, figure, points, reaches, front, styles)
        axes.set_xlabel("median latency of one image, ms (logarithmic; left is faster)")
        axes.set_ylabel("balanced accuracy")
        axes.grid(True)

    words = "; ".join(
        f"{p.name}: {format_latency(p.latency_ms)}, {format_percent(p.score)}, "
        f"{format_bytes(p.size_bytes)}"
        for p in points
    )
    best = ", ".join(points[index].name for index in front)
    return draw_figure(
        draw, 4.8, f"Balanced accuracy over median latency. {words}. On the Pareto front: {best}."
    )


def _limit_pareto(axes: Any, points: Sequence[EnginePoint]) -> None:
    """Set both ranges with room for markers and labels, and readable logarithmic ticks."""
    low, high = min(p.latency_ms for p in points), max(p.latency_ms for p in points)
    margin = max((high / low) ** 0.18, 1.5)
    axes.set_xscale("log")
    axes.set_xlim(low / margin, high * margin)
    axes.xaxis.set_major_locator(FixedLocator(choose_log_ticks(low / margin, high * margin)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(lambda value, _: format_plain(value))
    bottom = min(p.score if p.low is None else p.low for p in points)
    top = max(p.score if p.high is None else p.high for p in points)
    room = max(0.12 * (top - bottom), 0.01)
    axes.set_ylim(bottom - room, top + room)
    show_percent(axes.yaxis)


def choose_log_ticks(low: float, high: float) -> list[float]:
    """Return round numbers from `low` to `high`, at least three, as few as possible."""
    ticks: list[float] = []
    for digits in ((1,), (1, 3), (1, 2, 5), (1, 2, 3, 5, 7), (1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8)):
        numbers = (digit * 10.0**power for power in range(-6, 7) for digit in digits)
        ticks = [number for number in numbers if low <= number <= high]
        if len(ticks) >= 3:
            break
    return ticks


def _draw_front(axes: Any, front: Sequence[EnginePoint]) -> None:
    """Draw the front as steps and shade the dominated area: slower and not better."""
    x = [*(point.latency_ms for point in front), axes.get_xlim()[1]]
    y = [*(point.score for point in front), front[-1].score]
    axes.fill_between(x, y, axes.get_ylim()[0], step="post", color="#f3f5f8", linewidth=0, zorder=0)
    axes.step(x, y, where="post", color=GREY, linestyle="--", linewidth=1.2, zorder=1)


def _label_points(
    axes: Any,
    figure: Figure,
    points: Sequence[EnginePoint],
    reaches: Sequence[float],
    front: Sequence[int],
    styles: Mapping[str, MarkerStyle],
) -> None:
    """Write each engine's name and figures at a free position."""
    renderer = FigureCanvasAgg(figure).get_renderer()

    def locate(x: float, y: float) -> tuple[float, float]:
        across, up = axes.transData.transform((x, y))
        return float(across), float(up)

    texts, anchors, obstacles = [], [], _cover_front(axes, [points[i] for i in front])
    for index, (point, reach) in enumerate(zip(points, reaches, strict=True)):
        note = f"{format_latency(point.latency_ms)}, {format_bytes(point.size_bytes)}"
        texts.append(
            axes.text(
                0, 0, f"{point.name}\n{note}", fontsize=9, transform=None, linespacing=1.25,
                fontweight="bold" if index in front else "normal", zorder=4,
                bbox={"facecolor": "white", "alpha": 0.8, "linewidth": 0, "pad": 0.5},
            )
        )  # fmt: skip
        x, y = locate(point.latency_ms, point.score)
        anchors.append(Box(x - reach, y - reach, x + reach, y + reach))
        if point.low is not None and point.high is not None:
            ends = (locate(point.latency_ms, value)[1] for value in (point.low, point.high))
            obstacles.append(Box(x - 2, next(ends), x + 2, next(ends)))
    extents = [text.get_window_extent(renderer) for text in texts]
    frame = axes.get_window_extent(renderer)
    boxes = place_labels(
        anchors,
        [(extent.width, extent.height) for extent in extents],
        obstacles,
        Box(frame.x0 + 4, frame.y0 + 4, frame.x1, frame.y1),
    )
    for index, (point, extent, box) in enumerate(zip(points, extents, boxes, strict=True)):
        texts[index].set_position((box.left - extent.x0, box.bottom - extent.y0))
        if needs_leader(box, anchors, index):
            _draw_leader(axes, anchors[index], box, styles[point.name].colour)


def _cover_front(axes: Any, front: Sequence[EnginePoint]) -> list[Box]:
    """Return boxes over the horizontal parts of the front, in points."""
    ends = [*(point.latency_ms for point in front[1:]), axes.get_xlim()[1]]
    boxes = []
    for point, end in zip(front, ends, strict=True):
        left, y = axes.transData.transform((point.latency_ms, point.score))
        right, _ = axes.transData.transform((end, point.score))
        boxes.append(Box(float(left), float(y) - 2, float(right), float(y) + 2))
    return boxes


def _draw_leader(axes: Any, anchor: Box, box: Box, colour: str) -> None:
    """Draw a line from a label to its marker, below all labels."""
    (x, y), (near_x, near_y) = anchor.centre, box.nearest_to(anchor)
    axes.plot([x, near_x], [y, near_y], color=colour, linewidth=0.8, transform=None, zorder=3.5)
