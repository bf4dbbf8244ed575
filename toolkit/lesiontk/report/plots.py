"""Figures of recall, reliability and training curves."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from lesiontk.evaluate.evaluation import EngineEvaluation
from lesiontk.report.drawing import (
    BLUE,
    GREEN,
    GREY,
    PURPLE,
    VERMILLION,
    MarkerStyle,
    SvgFigure,
    draw_error_bar,
    draw_figure,
    show_percent,
)
from lesiontk.report.formatting import format_percent, share_estimate
from lesiontk.report.wording import name_metric

MAX_ROW = 0.15  # inches per engine in the recall plot
LEGEND_COLUMNS, LEGEND_ROW = 3, 0.2  # a row of the legend, in inches


def plot_recalls(
    metrics: Mapping[str, EngineEvaluation],
    labels: Sequence[str],
    notes: Mapping[str, str],
    styles: Mapping[str, MarkerStyle],
    names: Mapping[str, str],
) -> SvgFigure:
    """Draw the recall of each of `labels`, from the top, for every engine of `metrics`.

    `notes` gives a second line below a label, such as its number of images; `names` are the
    displayed names of the engines.
    """
    targets = list(metrics)
    row = min(MAX_ROW, 1.6 / len(targets))
    block = row * (len(targets) + 1.6)
    legend = _measure_legend(len(targets))

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for number, label in enumerate(labels):
            top = -number * block
            if number % 2 == 0:
                axes.axhspan(top - block, top, color="#f6f7f9", zorder=0, linewidth=0)
            for position, target in enumerate(targets):
                estimate = metrics[target].metrics[f"recall[{label}]"]
                if estimate.value is None:
                    continue
                low, high = estimate.low, estimate.high
                y = top - row * (position + 1.3)
                draw_error_bar(
                    axes, estimate.value, y, None if low is None or high is None else (low, high),
                    styles[target], along="x", size=6,
                )  # fmt: skip
        centres = [-(number + 0.5) * block for number in range(len(labels))]
        axes.set_yticks(centres, [f"{label}\n{notes.get(label, '')}" for label in labels])
        axes.get_yticklabels()[0].set_fontweight("bold")
        axes.tick_params(axis="y", length=0)
        axes.set_ylim(-len(labels) * block, 0)
        axes.set_xlim(-0.02, 1.02)
        show_percent(axes.xaxis)
        axes.set_xlabel("recall: share of the images of a class that are predicted as such")
        axes.grid(True, axis="x")
        inches = figure.get_figheight()
        top = 1 - (0.1 + legend) / inches
        figure.subplots_adjust(left=0.2, right=0.985, bottom=0.5 / inches, top=top)
        _draw_legend(figure, {target: names[target] for target in targets}, styles)

    words = "; ".join(
        f"{label}: "
        + ", ".join(
            f"{names[target]} {share_estimate(metrics[target].metrics[f'recall[{label}]']).value}"
            for target in targets
        )
        for label in labels
    )
    height = len(labels) * block + 0.6 + legend
    return draw_figure(draw, height, f"Recall of each class with intervals. {words}.")


def _measure_legend(entries: int) -> float:
    """Return the height in inches that `_draw_legend` needs."""
    return 0.1 + LEGEND_ROW * math.ceil(entries / LEGEND_COLUMNS)


def _draw_legend(
    figure: Figure,
    entries: Mapping[str, str],
    styles: Mapping[str, MarkerStyle],
    lines: bool = False,
) -> None:
    """Draw one legend entry per engine above all axes; with `lines`, including its dashes."""
    handles = [
        Line2D(
            [], [], color=styles[t].colour, marker=styles[t].marker, markerfacecolor=styles[t].face,
            linestyle=styles[t].dashes if lines else "", linewidth=1.2, markersize=6,
            markeredgewidth=1.4, label=label,
        )
        for t, label in entries.items()
    ]  # fmt: skip
    figure.legend(
        handles=handles, loc="upper left", ncols=min(LEGEND_COLUMNS, len(entries)),
        columnspacing=1.6, borderaxespad=0.2,
    )  # fmt: skip


def plot_reliability(
    metrics: Mapping[str, EngineEvaluation],
    styles: Mapping[str, MarkerStyle],
    names: Mapping[str, str],
) -> SvgFigure:
    """Plot accuracy over confidence in bins for each engine of `metrics`, and the bins' counts."""
    most = max(b.count for evaluation in metrics.values() for b in evaluation.reliability)

    errors = {
        target: share_estimate(evaluation.metrics["expected_calibration_error"]).value
        for target, evaluation in metrics.items()
    }
    legend = _measure_legend(len(metrics))
    height = 4.2 + legend

    def draw(figure: Figure) -> None:
        top = 1 - (0.2 + legend) / height
        figure.subplots_adjust(left=0.075, right=0.985, bottom=0.13, top=top, wspace=0.2)
        left, right = figure.subplots(1, 2)
        left.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle=":")
        left.annotate("confidence = accuracy", (0.03, 0.05), fontsize=8, color=GREY, rotation=45,
                      rotation_mode="anchor", xycoords="data")  # fmt: skip
        for target, evaluation in metrics.items():
            style, bins = (
                styles[target],
                [b for b in evaluation.reliability if b.count],
            )
            confidence, accuracy = [b.confidence for b in bins], [b.accuracy for b in bins]
            left.plot(confidence, accuracy, style.dashes, color=style.colour, linewidth=1.2)
            left.scatter(
                confidence,
                accuracy,
                [90 * b.count / most + 4 for b in bins],
                marker=style.marker,
                edgecolors=style.colour,
                facecolors=style.face,
                linewidths=1.2,
                zorder=3,
            )
            edges = [evaluation.reliability[0].low, *(b.high for b in evaluation.reliability)]
            counts = [b.count for b in evaluation.reliability]
            right.stairs(
                counts,
                edges,
                color=style.colour,
                linestyle=style.dashes,
                linewidth=1.5,
            )
        left.set_ylim(-0.03, 1.03)
        left.set_ylabel("share of correct predictions")
        left.set_title("accuracy in each bin of confidence")
        right.set_title("images in each bin")
        right.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
        show_percent(left.yaxis)
        for axes in (left, right):
            axes.set_xlim(-0.02, 1.02)
            axes.set_xlabel("confidence: the highest probability")
            axes.grid(True)
            show_percent(axes.xaxis)
        entries = {target: f"{names[target]}, ECE {error}" for target, error in errors.items()}
        _draw_legend(figure, entries, styles, lines=True)

    words = "; ".join(f"{names[target]} {error}" for target, error in errors.items())
    return draw_figure(draw, height, f"Reliability diagram. Expected calibration error: {words}.")


def plot_training(
    curves: Sequence[Mapping[str, float]], best_epoch: int | None, critical: str
) -> SvgFigure:
    """Draw losses and validation scores over epochs; the best epoch is marked."""
    epochs = [row["epoch"] for row in curves]
    losses = {"loss": "training loss", "log_loss": "validation log loss"}
    scores = [name for name in curves[0] if name not in ("epoch", *losses)]
    first = "balanced_accuracy"
    marker = "o" if len(curves) == 1 else None  # a line needs two points
    scores.sort(key=lambda name: (name != first, name != f"recall[{critical}]"))

    def draw(figure: Figure) -> None:
        figure.subplots_adjust(left=0.055, right=0.985, bottom=0.15, top=0.91, wspace=0.14)
        left, right = figure.subplots(1, 2)
        for (name, label), colour, dashes in zip(
            losses.items(), (BLUE, VERMILLION), ("-", "--"), strict=True
        ):
            if name in curves[0]:
                left.plot(
                    epochs, [row[name] for row in curves], dashes, color=colour, marker=marker,
                    label=label,
                )  # fmt: skip
        styles = ((BLUE, "-"), (VERMILLION, "--"), (GREEN, "-."), (PURPLE, ":"))
        for number, name in enumerate(scores):
            colour, dashes = styles[number % len(styles)]
            right.plot(
                epochs, [row[name] for row in curves], dashes, color=colour, marker=marker,
                label=name_metric(name), linewidth=2 if name == first else 1.4,
            )  # fmt: skip
        left.set_title("loss")
        right.set_title("scores on the validation images")
        show_percent(right.yaxis)
        right.set_ylim(-0.02, 1.02)
        for axes in (left, right):
            if best_epoch is not None:
                axes.axvline(best_epoch, color=GREY, linestyle=":", label=f"best: {best_epoch}")
            if marker:
                axes.set_xlim(epochs[0] - 1, epochs[0] + 1)
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
            axes.set_xlabel("epoch")
            axes.grid(True)
            if axes.get_legend_handles_labels()[0]:
                axes.legend(loc="best")

    values = [row[first] for row in curves if first in row]
    words = (
        f" Balanced accuracy goes from {format_percent(values[0])} to at most "
        f"{format_percent(float(np.max(values)))}."
        if values
        else ""
    )
    best = "" if best_epoch is None else f" Best epoch: {best_epoch}."
    return draw_figure(draw, 3.6, f"Training curves over {len(curves)} epochs.{words}{best}")
