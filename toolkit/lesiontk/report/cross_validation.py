"""A cross-validation as a self-contained HTML file, as sentences, and as tables of text."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from matplotlib.figure import Figure

from lesiontk.bench.benchmark import FULL_PRECISION
from lesiontk.evaluate.cross_validation import CrossValidation, PooledEngine, PooledMetric
from lesiontk.evaluate.metrics import order_labels
from lesiontk.report.drawing import (
    GREY,
    MarkerStyle,
    SvgFigure,
    draw_error_bar,
    draw_figure,
    show_percent,
    style_of_engines,
)
from lesiontk.report.formatting import (
    format_percent,
    format_points,
    points_estimate,
    share_estimate,
)
from lesiontk.report.render import make_environment
from lesiontk.report.result_table import format_estimate
from lesiontk.report.tables import tabulate_confusions
from lesiontk.report.wording import name_engine, name_metric

Matrix = tuple[tuple[int, ...], ...]
TEMPLATE = "cross_validation.html.j2"
HEADLINES = ("balanced_accuracy", "accuracy", "macro_auc", "sensitivity", "specificity")
RANKINGS = ("macro_auc", "auc")
"""Metrics that are shown as scores, not as shares."""
ENGINE_COLUMNS = ("engine", *map(name_metric, HEADLINES))
DIFFERENCE_COLUMNS = ("engine", "against", "of", "these networks", "between folds", "the procedure")


def write_page(result: CrossValidation, path: Path) -> None:
    """Write the page in UTF-8; equal results give equal bytes."""
    path.write_text(render_page(result), encoding="utf-8")


def render_page(result: CrossValidation) -> str:
    """Return the page as HTML; all text from the data is escaped."""
    critical = result.critical
    labels = (critical, *(n for n in order_labels(result.labels) if n != critical))
    matrices: dict[str, Matrix] = {engine.key: engine.confusion for engine in result.engines}
    return (
        make_environment()
        .get_template(TEMPLATE)
        .render(
            result=result,
            labels=labels,
            sentences=summarize(result),
            headline=choose_headline(result),
            headlines=HEADLINES,
            rankings=RANKINGS,
            compared=list_compared(result),
            confusions=tabulate_confusions(matrices, result.labels, labels),
            picture=plot_folds(result, style_of_engines(list(result.by_engine))),
        )
    )


def choose_headline(result: CrossValidation) -> PooledEngine:
    """Return the first engine of reduced precision, or the first engine."""
    return next(filter(_is_reduced, result.engines), result.engines[0])


def list_compared(result: CrossValidation) -> tuple[PooledEngine, ...]:
    """Return the engines of reduced precision or of compressed networks, with a comparison."""
    return tuple(
        engine
        for engine in result.engines
        if engine.versus_parent is not None
        and not engine.reference
        and (_is_reduced(engine) or engine.versus_parent.reference)
    )


def _is_reduced(engine: PooledEngine) -> bool:
    return not engine.target.endswith(f":{FULL_PRECISION}")


def summarize(result: CrossValidation) -> list[str]:
    """Return what a reader should know first, as sentences."""
    engine = choose_headline(result)
    score = engine.metrics["balanced_accuracy"]
    value = share_estimate(score.pooled)
    folds = [fold for fold in score.folds if fold is not None]
    sentences = [
        f"Balanced accuracy of the {name_engine(engine.key)} engines of {len(result.folds)} folds: "
        f"{value.value}{_in_brackets(value.interval)}."
    ]
    if folds and score.deviation is not None:
        low, high = (format_percent(end) for end in (min(folds), max(folds)))
        sentences.append(
            f"The folds reach {low} to {high}, with a standard deviation of "
            f"{format_points(score.deviation).removeprefix('+')} points."
        )
    versus = engine.versus_parent
    if versus is not None:
        change = points_estimate(versus.differences["balanced_accuracy"].pooled)
        sentences.append(
            f"Against the {name_engine(versus.parent_key)} engines of the same folds, on the same "
            f"images: {change.value} points{_in_brackets(change.interval)}."
        )
    return sentences


def list_engine_cells(result: CrossValidation) -> list[list[str]]:
    """Return the cells of `ENGINE_COLUMNS` for each engine: pooled values with intervals."""
    return [
        [engine.key, *(format_estimate(engine.metrics[name].pooled) for name in HEADLINES)]
        for engine in result.engines
    ]


def list_procedure_cells(result: CrossValidation) -> list[list[str]]:
    """Return the cells of `ENGINE_COLUMNS` for each engine: the procedure's."""
    return [
        [engine.key, *(format_estimate(engine.metrics[name].procedure) for name in HEADLINES)]
        for engine in result.engines
    ]


def list_difference_cells(result: CrossValidation) -> list[list[str]]:
    """Return the cells of `DIFFERENCE_COLUMNS`, for each engine of reduced precision."""
    return [
        [
            engine.key,
            engine.versus_parent.parent_key,
            name_metric(name),
            *list_metric_cells(engine.versus_parent.differences[name]),
        ]
        for engine in list_compared(result)
        if engine.versus_parent is not None
        for name in HEADLINES
    ]


def list_metric_cells(metric: PooledMetric) -> list[str]:
    """Return the pooled value, the standard deviation between folds, and the procedure's."""
    spread = "–" if metric.deviation is None else f"± {metric.deviation:.4f}"
    return [format_estimate(metric.pooled, 4), spread, format_estimate(metric.procedure, 4)]


def list_fold_cells(result: CrossValidation, metric: str) -> list[list[str]]:
    """Return fold, images and lesions of its parts, and each engine's value of a metric."""
    return [
        [
            str(fold.fold),
            f"{fold.training_images} ({fold.training_lesions})",
            f"{fold.images} ({fold.lesions})",
            str(fold.positives),
            *(
                "–" if (value := engine.metrics[metric].folds[place]) is None else f"{value:.3f}"
                for engine in result.engines
            ),
        ]
        for place, fold in enumerate(result.folds)
    ]


def fold_columns(result: CrossValidation) -> tuple[str, ...]:
    """Return the columns of `list_fold_cells`."""
    parts = ("fold", "training images (lesions)", "test images (lesions)", "positive")
    return (*parts, *(engine.key for engine in result.engines))


def plot_folds(result: CrossValidation, styles: Mapping[str, MarkerStyle]) -> SvgFigure:
    """Draw each engine's balanced accuracy: pooled with its interval, and the folds below it."""
    engines = result.engines
    scores = [engine.metrics["balanced_accuracy"] for engine in engines]
    shown = [
        value
        for score in scores
        for value in (score.pooled.value, score.pooled.low, score.pooled.high, *score.folds)
        if value is not None
    ]

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for number, (engine, score) in enumerate(zip(engines, scores, strict=True)):
            pooled, style = score.pooled, styles[engine.key]
            if pooled.value is None:
                continue
            interval = (
                None if pooled.low is None or pooled.high is None else (pooled.low, pooled.high)
            )
            draw_error_bar(axes, pooled.value, -number, interval, style, along="x", size=7)
            for place, value in enumerate(score.folds, start=1):
                if value is not None:
                    axes.text(
                        value, -number - 0.34, str(place), color=GREY, fontsize=8,
                        ha="center", va="center",
                    )  # fmt: skip
        low, high = min(shown), max(shown)
        axes.set_xlim(low - 0.05 * (high - low) - 0.002, high + 0.05 * (high - low) + 0.002)
        axes.set_yticks([-n for n in range(len(engines))], [engine.key for engine in engines])
        axes.tick_params(axis="y", length=0)
        axes.set_ylim(-len(engines) + 0.4, 0.6)
        show_percent(axes.xaxis)
        axes.set_xlabel("balanced accuracy")
        axes.grid(True, axis="x")
        inches = figure.get_figheight()
        figure.subplots_adjust(left=0.2, right=0.975, bottom=0.5 / inches, top=1 - 0.1 / inches)

    words = "; ".join(
        f"{engine.key} {share_estimate(score.pooled).value}"
        for engine, score in zip(engines, scores, strict=True)
    )
    height = 0.42 * len(engines) + 0.7
    return draw_figure(draw, height, f"Balanced accuracy of all folds and of each. {words}.")


def _in_brackets(interval: str) -> str:
    return f" ({interval})" if interval else ""
