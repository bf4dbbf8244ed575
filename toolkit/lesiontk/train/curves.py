"""Training curves as a plot and as TensorBoard logs."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path


def copy_events(source: Path, to: Path) -> None:
    """Copy TensorBoard logs, oldest first, under names without host, process and time."""
    to.mkdir()
    for number, path in enumerate(sorted(source.glob("events.out.tfevents.*")), start=1):
        shutil.copyfile(path, to / f"events.out.tfevents.{number:010d}")


def plot_curves(curves: Sequence[Mapping[str, float]], best_epoch: int, path: Path) -> None:
    """Plot the training loss and the validation scores over epochs; the best epoch is marked."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3.2))
    # Fixed margins: a computed layout draws everything twice.
    figure.subplots_adjust(left=0.07, right=0.985, bottom=0.145, top=0.905, wspace=0.13)
    left, right = figure.subplots(1, 2)
    epochs = [row["epoch"] for row in curves]
    left.plot(epochs, [row["loss"] for row in curves], label="training loss")
    left.plot(epochs, [row["log_loss"] for row in curves], label="validation log loss")
    names = [n for n in curves[0] if n not in ("epoch", "loss", "log_loss")]
    for name in names:
        right.plot(epochs, [row[name] for row in curves], label=f"{name.replace('_', ' ')}")
    for axes in (left, right):
        axes.axvline(best_epoch, color="0.6", linestyle=":", label=f"best epoch, {best_epoch}")
        axes.set_xlabel("epoch")
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    left.set_title("loss", fontsize=10)
    right.set_title("validation", fontsize=10)
    figure.savefig(path, dpi=110)
