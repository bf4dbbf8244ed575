"""The bias of a split by image: the same network on a leaky and on a lesion-level split.

    python benchmarks/leaky_split.py --data HAM10000_FOLDER --external ISIC_FOLDER [--workspace DIR]

HAM10000 contains several images of one lesion. In a split by image a lesion is in training and in
test, so memorization raises the scores. Both networks are also evaluated on external images that
neither has seen. Writes results/leaky_split.md and .json.
"""

from __future__ import annotations

import json
from pathlib import Path
from statistics import mean
from typing import Any

import click

from lesiontk.api.progress import make_progress
from lesiontk.data.dealt_split import DealtSplit
from lesiontk.evaluate.bootstrap import Estimate
from lesiontk.recipe import override_recipe, read_recipe
from lesiontk.report.result_table import format_estimate
from lesiontk.stages.evaluate import read_evaluation
from lesiontk.store import Store
from lesiontk.workflow.benchmark import PARENT
from lesiontk.workflow.convert import convert_model
from lesiontk.workflow.evaluate import evaluate_artefact, evaluate_external
from lesiontk.workflow.train import train_recipe

RESULTS = Path(__file__).parent / "results"
RECIPE = "cnn_7class"
METRICS = ("accuracy", "balanced_accuracy", "macro_auc", "recall[mel]")
KINDS = {"by lesion": False, "by image (leaky)": True}


@click.command()
@click.option("--data", type=click.Path(exists=True, path_type=Path), required=True)
@click.option("--external", type=click.Path(exists=True, path_type=Path), required=True)
@click.option("--workspace", type=click.Path(path_type=Path), default="lesiontk-workspace")
@click.option("--image-size", default=64, show_default=True)
@click.option("--epochs", default=30, show_default=True)
@click.option("--seeds", default=2, show_default=True)
def measure(
    data: Path, external: Path, workspace: Path, image_size: int, epochs: int, seeds: int
) -> None:
    """Train and evaluate on both kinds of split; write the table."""
    store = Store(workspace, make_progress())
    runs: list[dict[str, Any]] = []
    for seed in range(1, seeds + 1):
        for kind, leaky in KINDS.items():
            changes = {
                "data.path": str(data.resolve()),
                "data.image_size": image_size,
                "data.split.leaky": leaky,
                "train.epochs": epochs,
                "train.seed": seed,
                "convert": [PARENT],
            }
            overrides = [f"{key}={json.dumps(value)}" for key, value in changes.items()]
            model = train_recipe(store, override_recipe(read_recipe(RECIPE), overrides))
            engine = convert_model(store, model, [PARENT])[PARENT]
            evaluation = evaluate_artefact(store, engine)
            judged = read_evaluation(evaluation)
            elsewhere = evaluate_external(store, engine, evaluation, external)
            split = store.parent(store.parent(model, "images"), "split").read_facts(DealtSplit)
            runs.append(
                {
                    "split": kind,
                    "seed": seed,
                    "n": judged.n,
                    "split_hash": split.split_hash,
                    "lesions_on_several_sides": split.lesions_on_several_sides,
                    "test": {name: judged.metrics[name].to_document() for name in METRICS},
                    "external": elsewhere.to_document(),
                }
            )
    document = {"recipe": RECIPE, "image_size": image_size, "epochs": epochs, "runs": runs}
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "leaky_split.json").write_text(json.dumps(document, indent=1) + "\n")
    (RESULTS / "leaky_split.md").write_text(render(document))


def average(runs: list[dict[str, Any]], kind: str, where: str, metric: str) -> float:
    """Return the mean of a metric over the seeds of one kind of split."""
    chosen = [run for run in runs if run["split"] == kind]
    return mean(
        float((run["test"] if where == "test" else run["external"]["metrics"])[metric]["value"])
        for run in chosen
    )


def render(document: dict[str, Any]) -> str:
    """Return the comparison as Markdown."""
    runs = document["runs"]
    leaks = max(run["lesions_on_several_sides"] for run in runs)
    seen = runs[0]["external"]
    alone = "" if len(runs) > 2 else "One training of each, so that differences may be chance. "
    lines = [
        "# What a split by image flatters\n",
        f"{document['recipe']} at {document['image_size']} px, {document['epochs']} epochs, "
        "trained and judged on two splits of HAM10000, else equal. Split by image, "
        f"{leaks} lesions have images on more than one side. In brackets 95 % intervals from a "
        f"bootstrap over lesions. External: {seen['n']} images that belong to neither. "
        f"{alone}Again: "
        "`python benchmarks/leaky_split.py --data HAM10000_FOLDER --external ISIC_FOLDER "
        f"--image-size {document['image_size']} --epochs {document['epochs']} --seeds "
        f"{max(run['seed'] for run in runs)}`, or for one recipe `lesiontk run RECIPE "
        "--allow-leaky-split`.\n",
        "| split | seed | judged on | n | " + " | ".join(METRICS).replace("_", " ") + " |",
        "| --- |" + " --- |" * (3 + len(METRICS)),
    ]
    for run in runs:
        for where, n, metrics in (
            ("its test split", run["n"], run["test"]),
            ("external", run["external"]["n"], run["external"]["metrics"]),
        ):
            cells = [format_estimate(Estimate.from_document(metrics[name])) for name in METRICS]
            lines.append(
                f"| {run['split']} | {run['seed']} | {where} | {n} | {' | '.join(cells)} |"
            )
    honest, leaky = KINDS
    gains = []
    for where in ("test", "external"):
        for name in METRICS:
            gain = average(runs, leaky, where, name) - average(runs, honest, where, name)
            gains.append(f"{name.replace('_', ' ')} {gain:+.3f}")
    half = len(METRICS)
    lines.append(
        f"\nThe leaky split less the honest one, mean over seeds. On its own test split: "
        f"{', '.join(gains[:half])}. On the external images: {', '.join(gains[half:])}."
    )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    measure()
