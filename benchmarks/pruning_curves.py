"""How far can a network be pruned, and does its parent's teaching help? On validation alone.

    python benchmarks/pruning_curves.py MODEL… [--workspace DIR] [--epochs 2]

Prunes each trained MODEL to several shares of its operations, and lets each recover once with the
unpruned network's answers (distillation) and once without, everything else equal. Writes
results/pruning_curves.md, .json and a picture; rows of other models stay. The test split is not
read. What is trained already is reused: killed, it goes on where it was.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
from matplotlib.figure import Figure

from lesiontk.cli.progress import make_progress
from lesiontk.records import Artefact
from lesiontk.report.drawing import BLUE, GREY, VERMILLION, draw_picture
from lesiontk.store import Store
from lesiontk.workflow import compress_model

RESULTS = Path(__file__).parent / "results"
LEVELS = (0.7, 0.5, 0.35, 0.25, 0.15)
WAYS = {"with distillation": (), "without": ("distil=null",)}
"""Overrides of the compression."""
METRICS = ("balanced_accuracy", "macro_auc")


@click.command()
@click.argument("models", nargs=-1, required=True)
@click.option("--workspace", type=click.Path(path_type=Path), default="lesiontk-workspace")
@click.option("--epochs", default=2, show_default=True, help="Of recovery, each time.")
@click.option("--learning-rate", default=3e-4, show_default=True)
def cli(models: tuple[str, ...], workspace: Path, epochs: int, learning_rate: float) -> None:
    """Prune each model to every level in both ways; write the table and the picture."""
    store = Store(workspace, make_progress())
    file = RESULTS / "pruning_curves.json"
    kept: list[dict[str, Any]] = json.loads(file.read_text()) if file.exists() else []
    for name in models:
        curve = measure(store, store.resolve(name, "model"), epochs, learning_rate)
        kept = [other for other in kept if other["recipe"] != curve["recipe"]] + [curve]
    kept.sort(key=lambda curve: str(curve["recipe"]))
    file.write_text(json.dumps(kept, indent=1) + "\n")
    file.with_suffix(".md").write_text(render(kept))
    picture = draw_picture(
        lambda figure: draw(figure, kept), 3.2, "balanced accuracy by operations left"
    )
    file.with_suffix(".svg").write_bytes(picture.content)


def measure(store: Store, model: Artefact, epochs: int, learning_rate: float) -> dict[str, Any]:
    """Return the curve of one model: what is left of it, and its scores on validation."""
    recover = {"epochs": epochs, "learning_rate": learning_rate, "ema": 0.99}
    points = []
    for share in LEVELS:
        for way, overrides in WAYS.items():
            options = {"keep_macs": share, "recover": recover}
            pruned = compress_model(store, model, "prune", options, overrides)
            before, after = pruned.facts["pruned"]["macs"]
            points.append(
                {
                    "way": way,
                    "macs_share": after / before,
                    "parameters": pruned.facts["parameters"],
                    "validation": pruned.facts["validation"],
                    "seconds": pruned.manifest["seconds"],
                }
            )
            click.echo(f"{share:.0%} {way}: {points[-1]['validation']['balanced_accuracy']:.3f}")
    return {
        "recipe": model.manifest["recipe"]["name"],
        "image_size": model.manifest["recipe"]["data"]["image_size"],
        "split_hash": model.facts["split_hash"],
        "epochs": epochs,
        "learning_rate": learning_rate,
        "parameters": model.facts["parameters"],
        "validation": model.facts["validation"],
        "points": points,
    }


def render(curves: Sequence[dict[str, Any]]) -> str:
    """Return the tables as Markdown."""
    first = curves[0]
    parts = [
        "# Accuracy against operations\n\nChannels are removed by the criterion `taylor`, ranked "
        "over the whole network, to a share of its multiplications; the rest recovers for a few "
        "epochs, once also taught by the unpruned network's answers, once by the labels alone. "
        f"Judged on validation only (n = {first['validation']['n']} images, split "
        f"`{first['split_hash'][:12]}`), one training each: differences of a point may be chance. "
        "Longer recovery gives better networks: these are in [compression](compression.md).\n\n"
        "![curves](pruning_curves.svg)"
    ]
    for curve in curves:
        whole = curve["validation"]
        lines = [
            f"{curve['recipe']}, {curve['image_size']} px, {curve['epochs']} epochs of recovery; "
            f"unpruned: balanced accuracy {whole['balanced_accuracy']:.3f}, macro AUC "
            f"{whole['macro_auc']:.3f}, {curve['parameters']:,} parameters.\n",
            "| operations left | parameters | recovery | balanced accuracy | macro AUC |",
            "| --- | --- | --- | --- | --- |",
        ]
        for point in curve["points"]:
            scores = " | ".join(f"{point['validation'][name]:.3f}" for name in METRICS)
            left = f"{point['macs_share']:.0%} | {point['parameters']:,}"
            lines.append(f"| {left} | {point['way']} | {scores} |")
        parts.append("\n".join(lines))
    return "\n\n".join(parts) + "\n"


def draw(figure: Figure, curves: Sequence[dict[str, Any]]) -> None:
    """Draw one panel a recipe: balanced accuracy over the share of operations that is left."""
    panels = figure.subplots(1, len(curves), squeeze=False, sharey=True)[0]
    for axes, curve in zip(panels, curves, strict=True):
        axes.axhline(curve["validation"]["balanced_accuracy"], color=GREY, dashes=(4, 3))
        for way, colour, marker in zip(WAYS, (BLUE, VERMILLION), "oD", strict=True):
            points = [point for point in curve["points"] if point["way"] == way]
            axes.plot(
                [100 * point["macs_share"] for point in points],
                [point["validation"]["balanced_accuracy"] for point in points],
                color=colour, marker=marker, label=way,
            )  # fmt: skip
        axes.set_title(curve["recipe"])
        axes.set_xlabel("operations left, % (dashed: unpruned)")
        axes.grid(True)
    panels[0].set_ylabel("balanced accuracy, validation")
    panels[-1].legend()


if __name__ == "__main__":
    cli()
