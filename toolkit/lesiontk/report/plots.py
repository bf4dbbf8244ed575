"""Recall of each class, reliability and the course of training as pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from lesiontk.report.drawing import (
    BLUE,
    GREEN,
    GREY,
    PURPLE,
    VERMILLION,
    Look,
    Picture,
    draw_error_bar,
    draw_picture,
    show_percent,
)
from lesiontk.report.formatting import format_percent, share_estimate
from lesiontk.report.wording import name_metric

MAX_ROW = 0.15  # inches an engine takes in the recall plot


def plot_recalls(
    metrics: Mapping[str, Mapping[str, Any]],
    labels: Sequence[str],
    notes: Mapping[str, str],
    looks: Mapping[str, Look],
    names: Mapping[str, str],
) -> Picture:
    """Draw the recall of each of `labels`, from the top, for every engine of `metrics`.

    `notes` gives a second line below a label, such as its number of images; `names` are those of
    the engines for readers.
    """
    targets = list(metrics)
    row = min(MAX_ROW, 1.6 / len(targets))
    block = row * (len(targets) + 1.6)

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for number, label in enumerate(labels):
            top = -number * block
            if number % 2 == 0:
                axes.axhspan(top - block, top, color="#f6f7f9", zorder=0, linewidth=0)
            for position, target in enumerate(targets):
                estimate = metrics[target]["metrics"][f"recall[{label}]"]
                if estimate["value"] is None:
                    continue
                low, high = estimate["low"], estimate["high"]
                y = top - row * (position + 1.3)
                draw_error_bar(
                    axes, estimate["value"], y, None if low is None else (low, high),
                    looks[target], along="x", size=6,
                )  # fmt: skip
        centres = [-(number + 0.5) * block for number in range(len(labels))]
        axes.set_yticks(centres, [f"{label}\n{notes.get(label, '')}" for label in labels])
        axes.get_yticklabels()[0].set_fontweight("bold")
        axes.tick_params(axis="y", length=0)
        axes.set_ylim(-len(labels) * block, 0)
        axes.set_xlim(-0.02, 1.02)
        show_percent(axes.xaxis)
        axes.set_xlabel("recall: share of the images of a class that are recognised")
        axes.grid(True, axis="x")
        inches = figure.get_figheight()
        figure.subplots_adjust(left=0.2, right=0.985, bottom=0.5 / inches, top=1 - 0.4 / inches)
        _draw_legend(axes, targets, looks, names)

    words = "; ".join(
        f"{label}: "
        + ", ".join(
            f"{names[target]} "
            f"{share_estimate(metrics[target]['metrics'][f'recall[{label}]']).value}"
            for target in targets
        )
        for label in labels
    )
    height = len(labels) * block + 0.9
    return draw_picture(draw, height, f"Recall of each class with intervals. {words}.")


def _draw_legend(
    axes: Any, targets: Sequence[str], looks: Mapping[str, Look], names: Mapping[str, str]
) -> None:
    """Put one entry an engine above the axes, whether or not the first class had it."""
    handles = [
        Line2D(
            [], [], color=looks[t].colour, marker=looks[t].marker, markerfacecolor=looks[t].face,
            linestyle="", markersize=6, markeredgewidth=1.4, label=names[t],
        )
        for t in targets
    ]  # fmt: skip
    axes.legend(
        handles=handles, loc="lower left", bbox_to_anchor=(0, 1), ncols=min(6, len(targets)),
        handletextpad=0.3, columnspacing=1.6, borderaxespad=0.2,
    )  # fmt: skip


def plot_reliability(
    metrics: Mapping[str, Mapping[str, Any]], looks: Mapping[str, Look], names: Mapping[str, str]
) -> Picture:
    """Draw accuracy over confidence in bins for each engine of `metrics`, and the bins' counts."""
    most = max(b["count"] for document in metrics.values() for b in document["reliability"])

    def draw(figure: Figure) -> None:
        figure.subplots_adjust(left=0.075, right=0.985, bottom=0.13, top=0.93, wspace=0.2)
        left, right = figure.subplots(1, 2)
        left.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle=":")
        left.annotate("confidence = accuracy", (0.03, 0.05), fontsize=8, color=GREY, rotation=45,
                      rotation_mode="anchor", xycoords="data")  # fmt: skip
        for target, document in metrics.items():
            look, bins = looks[target], [b for b in document["reliability"] if b["count"]]
            error = share_estimate(document["metrics"]["expected_calibration_error"])
            confidence, accuracy = ([b[name] for b in bins] for name in ("confidence", "accuracy"))
            left.plot(confidence, accuracy, look.dashes, color=look.colour, linewidth=1.2)
            left.scatter(
                confidence,
                accuracy,
                [90 * b["count"] / most + 4 for b in bins],
                marker=look.marker,
                edgecolors=look.colour,
                facecolors=look.face,
                linewidths=1.2,
                zorder=3,
            )
            left.plot(
                [], [], look.dashes, color=look.colour, linewidth=1.2, marker=look.marker,
                markerfacecolor=look.face, markersize=5,
                label=f"{names[target]}, ECE {error.value}",
            )  # fmt: skip
            edges = [document["reliability"][0]["low"]]
            edges += [b["high"] for b in document["reliability"]]
            counts = [b["count"] for b in document["reliability"]]
            right.stairs(counts, edges, color=look.colour, linestyle=look.dashes, linewidth=1.5)
        left.set_ylim(-0.03, 1.03)
        left.set_ylabel("share of right answers")
        left.set_title("accuracy in each bin of confidence")
        right.set_title("images in each bin")
        right.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
        show_percent(left.yaxis)
        for axes in (left, right):
            axes.set_xlim(-0.02, 1.02)
            axes.set_xlabel("confidence: the highest probability")
            axes.grid(True)
            show_percent(axes.xaxis)
        left.legend(loc="upper left", bbox_to_anchor=(0.01, 0.99))

    words = "; ".join(
        f"{names[target]} {format_percent(d['metrics']['expected_calibration_error']['value'])}"
        for target, d in metrics.items()
    )
    return draw_picture(draw, 4.3, f"Reliability diagram. Expected calibration error: {words}.")


def plot_training(
    curves: Sequence[Mapping[str, float]], best_epoch: int | None, critical: str
) -> Picture:
    """Draw losses and validation scores over epochs; the best epoch is marked."""
    epochs = [row["epoch"] for row in curves]
    losses = {"loss": "training loss", "log_loss": "validation log loss"}
    scores = [name for name in curves[0] if name not in ("epoch", *losses)]
    first = "balanced_accuracy"
    scores.sort(key=lambda name: (name != first, name != f"recall[{critical}]"))

    def draw(figure: Figure) -> None:
        figure.subplots_adjust(left=0.055, right=0.985, bottom=0.15, top=0.91, wspace=0.14)
        left, right = figure.subplots(1, 2)
        for (name, label), colour, dashes in zip(
            losses.items(), (BLUE, VERMILLION), ("-", "--"), strict=True
        ):
            if name in curves[0]:
                left.plot(epochs, [row[name] for row in curves], dashes, color=colour, label=label)
        styles = ((BLUE, "-"), (VERMILLION, "--"), (GREEN, "-."), (PURPLE, ":"))
        for number, name in enumerate(scores):
            colour, dashes = styles[number % len(styles)]
            right.plot(
                epochs, [row[name] for row in curves], dashes, color=colour,
                label=name_metric(name), linewidth=2 if name == first else 1.4,
            )  # fmt: skip
        left.set_title("loss")
        right.set_title("scores on the validation images")
        show_percent(right.yaxis)
        right.set_ylim(-0.02, 1.02)
        for axes in (left, right):
            if best_epoch is not None:
                axes.axvline(best_epoch, color=GREY, linestyle=":", label=f"best: {best_epoch}")
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
    return draw_picture(draw, 3.6, f"Course of training over {len(curves)} epochs.{words}{best}")
