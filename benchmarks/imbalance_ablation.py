"""An ablation of treatments of rare classes, on validation only.

    python benchmarks/imbalance_ablation.py --data HAM10000_FOLDER --weights FILE [--workspace DIR]

Fine-tunes a fast network on small images for few epochs with each treatment, everything else equal,
and writes results/imbalance_ablation.md and .json. The test split is never read. Trained models are
reused, so a killed run continues.
"""

from __future__ import annotations

import json
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import click

from lesiontk.api.progress import make_progress
from lesiontk.recipe import override_recipe, read_recipe
from lesiontk.records import ModelFacts
from lesiontk.store import Store
from lesiontk.workflow.train import train_recipe

RESULTS = Path(__file__).parent / "results"
RECIPE = "efficientnet_lite0_7class"
TREATMENTS = (
    ("none",),
    ("logit_adjustment",),
    ("class_weight",),
    ("sqrt_sampling", "sqrt_class_weight"),
    ("sqrt_class_weight",),
    ("none", "label_smoothing:0.05"),
    ("logit_adjustment", "mixup:0.2"),
    ("sqrt_sampling",),
    ("balanced_sampling",),
    ("effective_number",),
    ("focal_loss",),
)
METRICS = ("balanced_accuracy", "macro_auc", "recall[mel]", "accuracy", "log_loss")


@click.command()
@click.option("--data", type=click.Path(exists=True, path_type=Path), required=True)
@click.option("--weights", default="imagenet", help="ImageNet weights, as `lesiontk train` takes.")
@click.option("--workspace", type=click.Path(path_type=Path), default="lesiontk-workspace")
@click.option("--image-size", default=64, show_default=True)
@click.option("--epochs", default=7, show_default=True)
@click.option("--seeds", default=1, show_default=True)
def ablate(
    data: Path, weights: str, workspace: Path, image_size: int, epochs: int, seeds: int
) -> None:
    """Train every treatment and write the table."""
    store = Store(workspace, make_progress())
    rows: list[dict[str, Any]] = []
    for treatment in TREATMENTS:
        scores = []
        for seed in range(1, seeds + 1):
            changes = {
                "data.path": str(data.resolve()),
                "data.image_size": image_size,
                "model.weights": weights,
                "train.grow": [],
                "train.epochs": epochs,
                "train.imbalance": list(treatment),
                "train.seed": seed,
            }
            overrides = [f"{key}={json.dumps(value)}" for key, value in changes.items()]
            model = train_recipe(store, override_recipe(read_recipe(RECIPE), overrides))
            facts = model.read_facts(ModelFacts)
            scores.append(dict(facts.validation.metrics))
        rows.append({"treatment": list(treatment), "seeds": scores})
        click.echo(f"{' + '.join(treatment)}: {summarize(scores, 'balanced_accuracy')}")
    rows.sort(key=lambda row: -mean(s["balanced_accuracy"] for s in row["seeds"]))
    document = {
        "recipe": RECIPE,
        "image_size": image_size,
        "epochs": epochs,
        "split_hash": facts.split_hash,
        "n": facts.validation.n,
        "rows": rows,
    }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "imbalance_ablation.json").write_text(json.dumps(document, indent=1) + "\n")
    (RESULTS / "imbalance_ablation.md").write_text(render(document))


def summarize(scores: list[dict[str, float]], metric: str) -> str:
    """Return ``0.612 ± 0.011``: mean and standard deviation over seeds."""
    values = [float(score[metric]) for score in scores]
    return f"{mean(values):.3f} ± {stdev(values):.3f}" if len(values) > 1 else f"{values[0]:.3f}"


def render(document: dict[str, Any]) -> str:
    """Return the table as Markdown."""
    seeds = len(document["rows"][0]["seeds"])
    spread = f"{seeds} seeds each: mean ± standard deviation over seeds"
    if seeds == 1:
        spread = "one seed each, so that differences of two points may be chance"
    lines = [
        "# Treatments of rare classes\n",
        f"{document['recipe']} at {document['image_size']} px, {document['epochs']} epochs, "
        f"{spread}, of the epoch with the best balanced accuracy. Judged on validation only "
        f"(n = {document['n']} images, split `{document['split_hash'][:12]}`); the test "
        "split was not read. Log loss is of probabilities that a treatment may shift on purpose. "
        "Again: `python "
        f"benchmarks/imbalance_ablation.py --data HAM10000_FOLDER --weights FILE --image-size "
        f"{document['image_size']} --epochs {document['epochs']} --seeds {seeds}`.\n",
        "| treatment | " + " | ".join(m.replace("_", " ") for m in METRICS) + " |",
        "| --- |" + " --- |" * len(METRICS),
    ]
    for row in document["rows"]:
        cells = [summarize(row["seeds"], metric) for metric in METRICS]
        lines.append(f"| {' + '.join(row['treatment'])} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    ablate()
