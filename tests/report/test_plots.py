"""The figures show what they are given, the same way each time."""

from __future__ import annotations

import base64
import logging
from collections.abc import Callable
from dataclasses import replace
from xml.etree import ElementTree

import matplotlib
import pytest
from matplotlib.figure import Figure

from lesiontk.evaluate.bootstrap import Estimate
from lesiontk.report.drawing import POINTS_PER_INCH, STYLE, WIDTH, SvgFigure, style_of_engines
from lesiontk.report.pareto import EnginePoint
from lesiontk.report.pareto_plot import choose_log_ticks, plot_pareto
from lesiontk.report.plots import plot_recalls, plot_reliability, plot_training
from lesiontk.report.tables import label_order, list_points
from tests.report.sample_report import TARGETS, TWO, make_curves, make_report_data

NAMES = {target: target for target in TARGETS}


def point(name: str, latency_ms: float, score: float) -> EnginePoint:
    return EnginePoint(name, latency_ms, score, score - 0.05, score + 0.05, 1_000_000)


def svg_of(picture: SvgFigure) -> bytes:
    kind, _, encoded = picture.source.partition(",")
    assert kind == "data:image/svg+xml;base64"
    return base64.b64decode(encoded)


@pytest.mark.parametrize(
    ("low", "high"), [(0.1, 2.0), (0.9, 1.3), (0.7, 1.7), (1.0, 1000.0), (0.012, 0.05)]
)
def test_a_logarithmic_axis_has_a_few_round_ticks(low: float, high: float) -> None:
    ticks = choose_log_ticks(low, high)
    assert 2 <= len(ticks) <= 10
    assert all(low <= tick <= high for tick in ticks)


def test_all_pictures_are_svg_that_names_nothing_outside_itself() -> None:
    data = make_report_data()
    styles = style_of_engines(TARGETS)
    labels = label_order(data.benchmark)
    pictures = [
        plot_pareto(list_points(data.benchmark), styles),
        plot_recalls(data.metrics, labels, {}, styles, NAMES),
        plot_reliability(data.metrics, styles, NAMES),
        plot_training(data.curves, 5, "mel"),
    ]
    for picture in pictures:
        root = ElementTree.fromstring(svg_of(picture))
        assert root.tag.endswith("svg")
        for element in root.iter():
            for name, value in element.attrib.items():
                if name.rpartition("}")[2] in ("href", "src"):
                    assert value.startswith("#")
        assert len(svg_of(picture)) < 200_000


def test_equal_data_gives_equal_bytes_whatever_the_users_settings() -> None:
    def draw() -> list[SvgFigure]:
        data = make_report_data()
        styles = style_of_engines(TARGETS)
        return [
            plot_pareto(list_points(data.benchmark), styles),
            plot_reliability(data.metrics, styles, NAMES),
        ]

    first = draw()
    with matplotlib.rc_context({"font.size": 30, "svg.hashsalt": "other", "axes.grid": True}):
        assert draw() == first


def test_drawing_leaves_the_users_settings_alone() -> None:
    with matplotlib.rc_context({"font.size": 31}):
        plot_training(make_curves("mel"), 5, "mel")
        assert matplotlib.rcParams["font.size"] == 31


def test_the_alternative_text_of_the_trade_off_names_engines_figures_and_front() -> None:
    points = [point("tflite:int8", 0.189, 0.7), point("keras:float32", 1.1, 0.69)]
    picture = plot_pareto(points, style_of_engines([p.name for p in points]))
    assert "tflite:int8: 0.189 ms, 70.0\N{NO-BREAK SPACE}%" in picture.alternative
    assert picture.alternative.endswith("On the Pareto front: tflite:int8.")


def test_the_front_is_drawn_where_it_is() -> None:
    fast_and_poor, slow_and_good = point("a:int8", 1.0, 0.5), point("b:int8", 2.0, 0.9)
    styles = style_of_engines(["a:int8", "b:int8"])
    both = plot_pareto([fast_and_poor, slow_and_good], styles)
    beaten = plot_pareto([fast_and_poor, point("b:int8", 2.0, 0.5)], styles)
    assert "Pareto front: a:int8, b:int8." in both.alternative
    assert "Pareto front: a:int8." in beaten.alternative


def test_one_engine_without_interval_is_enough() -> None:
    lonely = EnginePoint("onnx:int8", 3.0, 0.5, None, None, 10)
    assert svg_of(plot_pareto([lonely], style_of_engines(["onnx:int8"])))


def test_recalls_are_told_for_every_class_and_a_missing_one_is_a_dash() -> None:
    data = make_report_data(TWO, "malignant", TARGETS[:1])
    known = data.metrics["keras:float32"]
    nothing = {"recall[benign]": Estimate(None, None, None)}
    metrics = {"keras:float32": replace(known, metrics={**known.metrics, **nothing})}
    picture = plot_recalls(
        metrics, label_order(data.benchmark), {}, style_of_engines(TARGETS[:1]), NAMES
    )
    assert "malignant: keras:float32 9" in picture.alternative
    assert "benign: keras:float32 –" in picture.alternative


def test_a_recall_plot_of_more_engines_is_taller_within_reason() -> None:
    data = make_report_data()
    labels, styles = label_order(data.benchmark), style_of_engines(TARGETS)
    heights = [
        plot_recalls({t: data.metrics[t] for t in TARGETS[:n]}, labels, {}, styles, NAMES).height
        for n in (1, 3, 5)
    ]
    assert heights == sorted(heights)
    assert heights[-1] < 1000


@pytest.mark.parametrize("plot", ["recalls", "reliability"])
def test_a_legend_of_six_long_names_covers_no_data(
    plot: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    targets = (*TARGETS, "tensorrt:int8")
    data = make_report_data(targets=targets)
    styles, names = style_of_engines(targets), {t: f"{t} (emulated)" for t in targets}
    figures = []

    def keep(draw: Callable[[Figure], None], height: float, alternative: str) -> SvgFigure:
        with matplotlib.rc_context(STYLE):
            figure = Figure(figsize=(WIDTH, height), dpi=POINTS_PER_INCH)
            draw(figure)
            figure.draw_without_rendering()
        figures.append(figure)
        return SvgFigure("", alternative, 1, 1)

    monkeypatch.setattr("lesiontk.report.plots.draw_figure", keep)
    if plot == "recalls":
        plot_recalls(data.metrics, label_order(data.benchmark), {}, styles, names)
    else:
        plot_reliability(data.metrics, styles, names)
    (figure,) = figures
    (legend,) = figure.legends
    box = legend.get_window_extent()
    assert len(legend.get_texts()) == len(targets) == 6
    assert 0 <= box.x0 < box.x1 <= figure.bbox.x1
    assert box.y1 <= figure.bbox.y1
    for axes in figure.axes:
        assert axes.get_legend() is None
        assert not axes.get_tightbbox().overlaps(box)


def test_training_curves_tell_the_best_epoch_and_do_without_one() -> None:
    assert "Best epoch: 5." in plot_training(make_curves("mel"), 5, "mel").alternative
    assert "Best epoch" not in plot_training(make_curves("mel"), None, "mel").alternative
    assert svg_of(plot_training([{"epoch": 1.0, "loss": 0.5}], None, "mel"))


def test_a_training_of_one_epoch_shows_its_points() -> None:
    """A line through one point is not drawn, and no epoch is 0.945."""
    curves = make_curves("mel")[:1]
    svg = svg_of(plot_training(curves, 1, "mel")).decode()
    shown = len(set(curves[0]) - {"epoch"})
    assert svg.count('<g clip-path="url(') >= shown


def test_engines_can_be_told_apart_without_colour() -> None:
    styles = style_of_engines(["tflite:float32", "tflite:float16", "tflite:int8", "tflite:int4"])
    assert len({style.marker for style in styles.values()}) == 4
    assert [style.face == "white" for style in styles.values()] == [
        True,
        False,
        False,
        False,
    ]


def test_unknown_back_ends_get_colours_of_their_own() -> None:
    styles = style_of_engines(["keras:float32", "new:int8", "newer:int8"])
    assert len({style.colour for style in styles.values()}) == 3


def test_drawing_says_nothing(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        plot_training(make_curves("mel"), 5, "mel")
    assert not caplog.records
