"""How much smaller and faster are compressed networks, and what do they lose?

    python benchmarks/compression.py MODEL… [--workspace DIR]

Each MODEL is a compressed one that validation has chosen. Its int8 TFLite engine is timed in turns
with the float32 TFLite engine of the model that was trained first, one thread, batch 1, and both
are judged on the test split: differences are paired, with intervals by lesion. Writes
results/compression.md and .json; rows of other models stay.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from lesiontk.backends.answers import engine_file
from lesiontk.bench.machine import describe_machine
from lesiontk.bench.measure import deflated_bytes, measure_engines
from lesiontk.cli.progress import make_progress
from lesiontk.data.images import open_images
from lesiontk.evaluate.comparison import compare_predictions
from lesiontk.evaluate.evaluate_stage import read_operating_point, read_predictions
from lesiontk.recipe import BenchRule
from lesiontk.records import Artefact
from lesiontk.report.result_table import format_estimate
from lesiontk.report.tables import list_steps
from lesiontk.report.wording import describe_compression
from lesiontk.store import Store
from lesiontk.workflow import (
    ancestors_of,
    convert_model,
    evaluate_artefact,
    training_seconds,
)

RESULTS = Path(__file__).parent / "results"
FLOAT, INT8 = "tflite:float32", "tflite:int8"
TARGETS = {
    "vgg16": (12, 12),
    "resnet152v2": (10, 10),
    "cnn": (4, 6),
    "efficientnet_lite0": (2.5, 4),
}
"""What was aimed at for each architecture: times faster, times smaller."""


@click.command()
@click.argument("models", nargs=-1, required=True)
@click.option("--workspace", type=click.Path(path_type=Path), default="lesiontk-workspace")
@click.option("--rounds", default=200, show_default=True)
def cli(models: tuple[str, ...], workspace: Path, rounds: int) -> None:
    """Measure each model and write the table."""
    store = Store(workspace, make_progress())
    file = RESULTS / "compression.json"
    rows = {row["model"]: row for row in (json.loads(file.read_text()) if file.exists() else [])}
    for name in models:
        row = compare(store, store.resolve(name, "model"), rounds)
        rows[row["model"]] = row
    ordered = sorted(rows.values(), key=lambda row: (row["recipe"], -row["macs_share"]))
    file.write_text(json.dumps(ordered, indent=1) + "\n")
    (RESULTS / "compression.md").write_text(render(ordered))


def compare(store: Store, model: Artefact, rounds: int) -> dict[str, Any]:
    """Return what the int8 engine of a compressed model is beside the first model's in float32."""
    trained = ancestors_of(store, model)[0]
    before = convert_model(store, trained, [FLOAT])[FLOAT]
    after = convert_model(store, model, [INT8])[INT8]
    images = open_images(store.parent(model, "images"))
    pixels = images.pixels[images.draw_stratified("validation", 16, seed=0)]
    files = {"before": engine_file(before), "after": engine_file(after)}
    measured = measure_engines(files, pixels, BenchRule(rounds=rounds), store.progress)
    judged = [evaluate_artefact(store, engine) for engine in (before, after)]
    truth, parent, groups, _, labels = read_predictions(judged[0])
    child = read_predictions(judged[1])[1]
    compared = compare_predictions(
        truth,
        parent,
        child,
        labels,
        groups,
        points=(read_operating_point(judged[0]), read_operating_point(judged[1])),
    ).to_json()
    steps = list_steps(model.facts, str(model.manifest["stage"]["name"]))
    if not steps or steps[0]["stage"] not in ("train", "import"):
        raise click.ClickException(f"{model.name} does not tell all its steps; compress it anew")
    latency = {name: measured[name].latency_json() for name in files}
    return {
        "model": model.name,
        "recipe": model.manifest["recipe"]["name"],
        "architecture": model.facts["architecture"],
        "image_size": images.preprocessing.image_size,
        "split_hash": images.split_hash,
        "critical": images.critical,
        "steps": [
            {"step": step["stage"], "what": describe_compression(step)} for step in steps[1:]
        ],
        "compress": model.manifest["recipe"]["compress"],
        "seconds": training_seconds(store, model),
        "macs_share": macs_share(model),
        "validation": [trained.facts["validation"], model.facts["validation"]],
        "latency_ms": latency,
        "faster": latency["before"]["median"] / latency["after"]["median"],
        "size_bytes": {name: path.stat().st_size for name, path in files.items()},
        "deflated_bytes": {name: deflated_bytes(path) for name, path in files.items()},
        "smaller": files["before"].stat().st_size / files["after"].stat().st_size,
        "test": compared,
        "machine": describe_machine(),
    }


def macs_share(model: Artefact) -> float:
    """Return the share of the multiplications that all prunings together have left."""
    share = 1.0
    for step in list_steps(model.facts, str(model.manifest["stage"]["name"])):
        if step["stage"] == "prune":
            share *= step["pruned"]["macs"][1] / step["pruned"]["macs"][0]
    return share


def render(rows: list[dict[str, Any]]) -> str:
    """Return the table as Markdown."""
    machine, test = rows[-1]["machine"], rows[-1]["test"]
    lines = [
        "# Compressed networks\n",
        "int8 TFLite engine of the compressed network beside the float32 TFLite engine of the "
        f"trained one: latency in turns, one thread, batch 1, on {machine['processor']} "
        f"(n = {rows[-1]['latency_ms']['after']['n']} rounds); differences on the test split of "
        f"HAM10000, n = {test['n']} images of {test['lesions']} lesions, paired, with "
        f"{test['confidence']:.0%} intervals by lesion. What is compressed how was chosen on "
        "validation. Aims: "
        + "; ".join(f"{n} {fast}× faster, {small}× smaller" for n, (fast, small) in TARGETS.items())
        + ".\n",
        "| recipe | px | steps | operations left | faster | smaller | deflated smaller | "
        "balanced accuracy, difference | recall of the critical class, difference | "
        "sensitivity, difference |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        differences = row["test"]["differences"]
        sizes = row["deflated_bytes"]
        lines.append(
            f"| {row['recipe']} | {row['image_size']} | "
            f"{' → '.join(step['step'] for step in row['steps'])} → int8 | "
            f"{row['macs_share']:.0%} | {row['faster']:.1f}× | {row['smaller']:.1f}× | "
            f"{sizes['before'] / sizes['after']:.1f}× | "
            f"{format_estimate(differences['balanced_accuracy'])} | "
            f"{format_estimate(differences['recall[' + row['critical'] + ']'])} | "
            f"{format_estimate(differences['sensitivity'])} |"
        )
    lines.append("\nEach model's orders (`compress`) and training seconds are in the JSON.")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    cli()
