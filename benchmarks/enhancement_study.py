"""The effect of enhancement filters on Inception-v2, in paired runs.

    python benchmarks/enhancement_study.py --data HAM10000_FOLDER [--workspace DIR]

After Edizkan 2021, who reports 88.66 % accuracy for benign against malignant and +3.33 points by
preprocessing. Trains inceptionv2_binary and inceptionv2_binary_enhanced with the same seeds and
evaluates each model once on the same test images. Writes results/enhancement_study.md and .json.
Trained models are reused.
"""

from __future__ import annotations

import json
from pathlib import Path
from statistics import stdev
from typing import Any

import click
import numpy as np

from lesiontk.api.progress import make_progress
from lesiontk.evaluate.bootstrap import estimate_metrics
from lesiontk.evaluate.comparison import apply_mcnemar_test
from lesiontk.evaluate.metrics import MetricScorer
from lesiontk.recipe import override_recipe, read_recipe
from lesiontk.records import Artefact, ModelFacts
from lesiontk.stages.evaluate import read_predictions
from lesiontk.store import Store
from lesiontk.workflow.benchmark import PARENT
from lesiontk.workflow.convert import convert_model
from lesiontk.workflow.evaluate import evaluate_artefact
from lesiontk.workflow.train import train_recipe

RESULTS = Path(__file__).parent / "results"
PLAIN, ENHANCED = "inceptionv2_binary", "inceptionv2_binary_enhanced"
METRICS = ("accuracy", "balanced_accuracy", "macro_auc", "recall[malignant]")
RESAMPLES = 1000


@click.command()
@click.option("--data", type=click.Path(exists=True, path_type=Path), required=True)
@click.option("--workspace", type=click.Path(path_type=Path), default="lesiontk-workspace")
@click.option("--seeds", default=3, show_default=True)
def study(data: Path, workspace: Path, seeds: int) -> None:
    """Train, evaluate and compare; write the tables."""
    store = Store(workspace, make_progress())
    scorers: dict[str, list[MetricScorer]] = {PLAIN: [], ENHANCED: []}
    runs: list[dict[str, Any]] = []
    for seed in range(1, seeds + 1):
        for recipe in (PLAIN, ENHANCED):
            changes = [f"data.path={json.dumps(str(data.resolve()))}", f"train.seed={seed}"]
            model = train_recipe(store, override_recipe(read_recipe(recipe), changes))
            facts = model.read_facts(ModelFacts)
            evaluation = judge(store, model)
            truth, probabilities, groups, image_ids, labels = read_predictions(evaluation)
            scorer = MetricScorer(truth, probabilities, labels)
            scorers[recipe].append(scorer)
            values = scorer.compute(None)
            runs.append(
                {
                    "recipe": recipe,
                    "seed": seed,
                    "training_seconds": model.manifest.seconds,
                    "epochs": facts.epochs,
                    "best_epoch": facts.best_epoch,
                    "split_hash": facts.split_hash,
                    "n": len(truth),
                    "metrics": {name: float(values[name][0]) for name in METRICS},
                    "images": list(image_ids),
                }
            )
            click.echo(f"{recipe}, seed {seed}: {runs[-1]['metrics']}")
    if any(run["images"] != runs[0]["images"] for run in runs):
        raise click.ClickException(
            "the runs were evaluated on different images and cannot be paired."
        )
    document = {
        "runs": [{k: v for k, v in run.items() if k != "images"} for run in runs],
        "image_size": read_recipe(PLAIN).data.image_size,
        "enhance": list(read_recipe(ENHANCED).data.enhance),
        "lesions": len(set(groups)),
        "resamples": RESAMPLES,
        "differences": compare(scorers[PLAIN], scorers[ENHANCED], groups),
        "mcnemar": [
            apply_mcnemar_test(a.top1 == a.y_true, b.top1 == b.y_true).to_document()
            for a, b in zip(scorers[PLAIN], scorers[ENHANCED], strict=True)
        ],
    }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "enhancement_study.json").write_text(json.dumps(document, indent=1) + "\n")
    (RESULTS / "enhancement_study.md").write_text(render(document))


def judge(store: Store, model: Artefact) -> Artefact:
    """Return the evaluation of the trained model on the test subset."""
    engine = convert_model(store, model, [PARENT])[PARENT]
    return evaluate_artefact(store, engine)


def compare(
    plain: list[MetricScorer], enhanced: list[MetricScorer], groups: list[str]
) -> dict[str, dict[str, float | None]]:
    """Return enhanced - plain of each metric, the mean over seeds with a paired interval.

    Both are scored on the same draws of whole lesions, [B]; the interval is the variation over test
    lesions, the deviation over seeds that over trainings.
    """

    def differences(weights: Any) -> dict[str, Any]:
        """Return metric -> enhanced - plain, [seeds, B]."""
        pairs = [
            (a.compute(weights), b.compute(weights)) for a, b in zip(plain, enhanced, strict=True)
        ]
        return {name: np.stack([b[name] - a[name] for a, b in pairs]) for name in METRICS}

    estimates = estimate_metrics(
        lambda weights: {name: x.mean(axis=0) for name, x in differences(weights).items()},
        groups,
        resamples=RESAMPLES,
        confidence=0.95,
        seed=0,
    )
    seeds = {name: [float(x) for x in values[:, 0]] for name, values in differences(None).items()}
    return {
        name: {
            **estimate.to_document(),
            "deviation_over_seeds": stdev(seeds[name]) if len(plain) > 1 else 0.0,
        }
        for name, estimate in estimates.items()
    }


def render(document: dict[str, Any]) -> str:
    """Return the study as Markdown."""
    runs = document["runs"]
    lines = [
        "# Inception-v2 with and without enhancement\n",
        f"Benign against malignant, {document['image_size']} px, trained from random weights; "
        f"enhancement: {', '.join(document['enhance'])}. Test split by lesion, n = {runs[0]['n']} "
        f"images of {document['lesions']} lesions, split `{runs[0]['split_hash'][:12]}`. Again: "
        "`python benchmarks/enhancement_study.py --data HAM10000_FOLDER`.\n",
        "| recipe | seed | accuracy | balanced accuracy | AUC | recall of malignant | epochs | "
        "training, min |",
        "| --- |" + " --- |" * 7,
    ]
    for run in runs:
        cells = [f"{run['metrics'][name]:.3f}" for name in METRICS]
        lines.append(
            f"| {run['recipe']} | {run['seed']} | {' | '.join(cells)} | {run['epochs']} | "
            f"{run['training_seconds'] / 60:.0f} |"
        )
    lines += [
        "\nEnhanced minus plain, mean over seeds; in brackets the 95 % interval of a paired "
        f"bootstrap over lesions ({document['resamples']} draws); then the standard deviation "
        "over seeds:\n",
        "| metric | difference | over seeds |",
        "| --- | --- | --- |",
    ]
    for name, found in document["differences"].items():
        lines.append(
            f"| {name.replace('_', ' ')} | {found['value']:+.4f} [{found['low']:+.4f}, "
            f"{found['high']:+.4f}] | {found['deviation_over_seeds']:.4f} |"
        )
    tests = "; ".join(
        f"seed {number}: {test['b']} images right without only, {test['c']} with only, "
        f"p = {test['p_value']:.3g}"
        for number, test in enumerate(document["mcnemar"], start=1)
    )
    lines.append(f"\nMcNemar's exact test by image, per seed: {tests}.")
    lines.append(
        "\nEdizkan (2021) reports 88.66 % accuracy for benign against malignant, and 3.33 points "
        "gained by such preprocessing, on a split of its own."
    )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    study()
