"""Accuracy of pruned networks, with and without distillation from the parent, on validation only.

    python benchmarks/pruning_curves.py MODEL… [--workspace DIR] [--epochs 2]

Prunes each trained MODEL to several shares of its operations, and fine-tunes each once with
distillation from the unpruned network and once without, everything else equal. Writes
results/pruning_curves.md, .json and a figure after each point, the smallest networks first. The
test split is not read. Points in the JSON with the same settings are not trained again, so a killed
run continues, also on another machine.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
from matplotlib.figure import Figure

from lesiontk.api.progress import make_progress
from lesiontk.records import Artefact, ModelFacts
from lesiontk.report.drawing import BLUE, GREY, VERMILLION, draw_figure
from lesiontk.stages.prune import Pruning
from lesiontk.store import Store
from lesiontk.workflow.compress import compress_model

FILE = Path(__file__).parent / "results" / "pruning_curves.json"
LEVELS = (0.1, 0.15, 0.25, 0.35, 0.5)
WAYS = {"with distillation": (), "without": ("distil=null",)}
"""Overrides of the compression."""
ORIGINS = {
    "resnet152v2_7class": "Trained anew, without pretrained weights, in 2 epochs (`lesiontk train "
    "resnet152v2_7class --weights none --set data.image_size=64 --set train.epochs=2 --set "
    "'train.grow=[48]' --set train.head_epochs=0 --set train.learning_rate=0.001 --set "
    "train.lowest_rate=1.0`) and 12 taught by efficientnet_lite0_7class (`lesiontk distil`, whose "
    "orders are in compression.json).",
    "vgg16_7class": "The published network, had back from its engine: `python "
    "benchmarks/widen_engine.py vgg16_7class OUT.keras --image-size 80`, then `lesiontk import "
    "OUT.keras --recipe vgg16_7class`; at 80 pixels it is nearly as good as at its 112, and "
    "recovers in half the time.",
}
"""The origin of a model, if not its recipe's command."""
METRICS = ("balanced_accuracy", "macro_auc")


@click.command()
@click.argument("models", nargs=-1, required=True)
@click.option("--workspace", type=click.Path(path_type=Path), default="lesiontk-workspace")
@click.option("--epochs", default=2, show_default=True, help="Of recovery, each time.")
@click.option("--learning-rate", default=3e-4, show_default=True)
@click.option("--batch-size", default=32, show_default=True)
@click.option("--ema", default=0.99, show_default=True, help="Momentum of averaged weights.")
def cli(
    models: tuple[str, ...],
    workspace: Path,
    epochs: int,
    learning_rate: float,
    batch_size: int,
    ema: float,
) -> None:
    """Prune each model to every level in both ways; write the table and the figure."""
    store = Store(workspace, make_progress())
    recover = {
        "epochs": epochs,
        "learning_rate": learning_rate,
        "batch_size": batch_size,
        "ema": ema,
    }
    for name in models:
        measure(store, store.resolve(name, "model"), recover)


def measure(store: Store, model: Artefact, recover: dict[str, Any]) -> None:
    """Measure the missing points of a model's curve, and write all curves after each point."""
    whole = model.read_facts(ModelFacts)
    settings = {
        "recipe": model.recipe_name,
        "image_size": whole.preprocessing.image_size,
        "split_hash": whole.split_hash,
        **recover,
        "parameters": whole.parameters,
    }
    known = [curve for curve in read_curves() if settings.items() <= curve.items()]
    curve = known[0] if known else {**settings, "validation": list_scores(whole)}
    points = curve.setdefault("points", [])
    for share in LEVELS:
        for way, overrides in WAYS.items():
            if any((point["way"], point["asked"]) == (way, share) for point in points):
                continue
            options = {"keep_macs": share, "recover": recover}
            pruned = compress_model(store, model, "prune", options, overrides)
            facts = pruned.read_facts(ModelFacts)
            before, after = facts.read_change(Pruning).macs
            points.append(
                {
                    "way": way,
                    "asked": share,
                    "macs_share": after / before,
                    "parameters": facts.parameters,
                    "validation": list_scores(facts),
                    "seconds": pruned.manifest.seconds,
                }
            )
            points.sort(key=lambda point: (point["asked"], point["way"]))
            click.echo(f"{share:.0%} {way}: {facts.validation.balanced_accuracy:.3f}")
            kept = [other for other in read_curves() if other["recipe"] != curve["recipe"]]
            write(sorted([*kept, curve], key=lambda curve: str(curve["recipe"])))


def list_scores(model: ModelFacts) -> dict[str, float]:
    """Return the scores on validation by metric, and how many images these are."""
    return {"n": model.validation.n, **model.validation.metrics}


def read_curves() -> list[dict[str, Any]]:
    """Return the points so far, including those of another process."""
    return json.loads(FILE.read_text()) if FILE.exists() else []


def write(curves: Sequence[dict[str, Any]]) -> None:
    """Write the table, the JSON and the figure."""
    FILE.write_text(json.dumps(curves, indent=1) + "\n")
    FILE.with_suffix(".md").write_text(render(curves))
    picture = draw_figure(
        lambda figure: draw(figure, curves), 3.2, "balanced accuracy by operations left"
    )
    FILE.with_suffix(".svg").write_bytes(picture.content)


def render(curves: Sequence[dict[str, Any]]) -> str:
    """Return the tables as Markdown."""
    first = curves[0]
    parts = [
        "# Accuracy against operations\n\nChannels are removed by the criterion `taylor`, ranked "
        "over the whole network, to a share of its multiplications; the rest recovers for an "
        "epoch or a few, once also taught by the unpruned network's answers, once by the labels "
        "alone; recall of the critical class was not held to the unpruned network's yet. "
        f"Judged on validation only (n = {first['validation']['n']} images, split "
        f"`{first['split_hash'][:12]}`), one training each: differences of a point may be chance. "
        "Longer recovery gives better networks: these are in [compression](compression.md).\n\n"
        "![curves](pruning_curves.svg)"
    ]
    for curve in curves:
        whole = curve["validation"]
        lines = [
            f"{curve['recipe']}, {curve['image_size']} px, recovery in {curve['epochs']} epoch(s) "
            f"of batches of {curve['batch_size']} at {curve['learning_rate']:g}, averaged with "
            f"momentum {curve['ema']:g}; "
            f"unpruned: balanced accuracy {whole['balanced_accuracy']:.3f}, macro AUC "
            f"{whole['macro_auc']:.3f}, {curve['parameters']:,} parameters. "
            f"{ORIGINS.get(curve['recipe'], '')}".rstrip()
            + "\n",
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
    """Draw one panel per recipe: balanced accuracy over the remaining share of operations."""
    panels = figure.subplots(1, len(curves), squeeze=False, sharey=True)[0]
    figure.subplots_adjust(left=0.075, right=0.985, bottom=0.16, top=0.91, wspace=0.06)
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
