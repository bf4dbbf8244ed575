"""Let one engine of a compressed network take the place of the published one of its target.

    python benchmarks/publish_engine.py BENCHMARK TARGET [--workspace DIR]

For a compressed network of which some engines pass the recipe's gate and others do not: an engine
that passed replaces the larger one; the others stay. Writes the engine into engines/RECIPE/, its
figures into results/RECIPE.json (`replaced`), and what it is into the model card.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from lesiontk.backends.answers import engine_file
from lesiontk.bench.bench_stage import read_benchmark
from lesiontk.bench.rows import name_target
from lesiontk.calibration.calibrate_stage import read_calibration
from lesiontk.calibration.draw import read_list
from lesiontk.compress.history import find_trained
from lesiontk.relatives import model_of, trained_of, training_seconds
from lesiontk.report.result_table import format_estimate
from lesiontk.report.tables import describe_steps, shorten_orders
from lesiontk.store import Store

HERE = Path(__file__).parent
BEFORE = "## Quantization"
"""The section of a model card before which the engine's own is put."""


@click.command()
@click.argument("reference")
@click.argument("target")
@click.option("--workspace", type=click.Path(path_type=Path), default="lesiontk-workspace")
def publish(reference: str, target: str, workspace: Path) -> None:
    """Publish the engine of TARGET of a benchmark, if it passed its recipe's gate."""
    store = Store(workspace)
    benchmark = store.resolve(reference, "benchmark")
    recipe, document = benchmark.recipe_name, read_benchmark(benchmark)
    gate = [result for result in document["gate"] if result["engine"] == target]
    failed = [result["metric"] for result in gate if not result["passed"]]
    if failed or not gate or document["gate_unjudged"]:
        raise click.ClickException(f"{target} did not pass the gate: {failed or 'not judged'}.")
    engine = store.parent(benchmark, f"engine:{target}")
    model = model_of(store, engine)
    trained = trained_of(store, model)
    file = HERE / "results" / f"{recipe}.json"
    published = json.loads(file.read_text())
    drawn = [row["image_id"] for row in read_calibration(store.parent(engine, "calibration"))]
    if trained.facts["parameters"] != published["trained"]["parameters"]:
        raise click.ClickException(f"{trained.name} is not the network that {recipe} publishes.")
    if sorted(drawn) != sorted(read_list(recipe)):
        raise click.ClickException(f"{target} was calibrated on other images than {recipe}'s list.")
    steps = describe_steps(model.facts, model.stage)
    first = find_trained(step["step"] for step in steps)
    path = engine_file(engine)
    published.setdefault("replaced", {})[target] = {
        "file": path.name,
        "row": next(row for row in document["rows"] if name_target(row) == target),
        "gate": gate,
        "parameters": model.facts["parameters"],
        "validation": model.facts["validation"],
        "steps": steps[first + 1 :],
        "compress": shorten_orders(model.manifest["recipe"]["compress"], HERE.parent),
        "seconds": training_seconds(store, model) - training_seconds(store, trained),
        "critical": document["critical"],
        "machine": document["machine"],
    }
    folder = HERE / "engines" / recipe
    shutil.copyfile(path, folder / path.name)
    file.write_text(json.dumps(published, indent=1) + "\n")
    card = (folder / "README.md").read_text()
    (folder / "README.md").write_text(tell_engine(card, published["replaced"][target]))
    click.echo(f"wrote {folder / path.name}")


def tell_engine(card: str, replaced: Mapping[str, Any]) -> str:
    """Return a model card that tells of an engine which took another's place."""
    start = f"- `{replaced['file']}`: "
    lines = [
        f"{start}of a smaller network, see Compressed" if line.startswith(start) else line
        for line in card.splitlines()
    ]
    text = "\n".join(lines) + "\n"
    return text.replace(BEFORE, f"## Compressed\n\n{describe_engine(replaced)}\n\n{BEFORE}", 1)


def describe_engine(replaced: Mapping[str, Any]) -> str:
    """Return what an engine is that took another's place, and what it costs, in Markdown."""
    row, recall = replaced["row"], f"recall[{replaced['critical']}]"
    versus, size = row["versus_parent"], row["image_size"]
    differences, metrics = versus["differences"], row["metrics"]
    made = "; ".join(f"{step['step']}: {step['what']}" for step in replaced["steps"])
    return (
        f"`{replaced['file']}` is of a smaller network, {replaced['parameters']:,} parameters, "
        f"input [1, {size}, {size}, 3], made of the one above in {replaced['seconds'] / 60:.0f} "
        f"minutes ({made}). On validation its balanced accuracy is "
        f"{replaced['validation']['balanced_accuracy']:.3f} (n = {replaced['validation']['n']}). "
        f"Beside the float32 engine of the network as it was trained, in one run on "
        f"{replaced['machine']['processor']} (n = {row['latency_ms']['n']} rounds): "
        f"{versus['speedup']:.2f}× faster, {versus['size_ratio']:.2f}× smaller; on the test split "
        f"(n = {row['n']}) balanced accuracy {format_estimate(metrics['balanced_accuracy'])}, "
        f"difference {format_estimate(differences['balanced_accuracy'])}, {recall} "
        f"{format_estimate(metrics[recall])}, difference "
        f"{format_estimate(differences[recall])}, accuracy "
        f"{format_estimate(metrics['accuracy'])}, difference "
        f"{format_estimate(differences['accuracy'])}, specificity at the frozen threshold, "
        f"difference {format_estimate(differences['specificity'])}. It passes the recipe's gate. "
        "The tables below are of the whole network; the other engines are, too, for those of the "
        "smaller one missed the gate. Orders: `replaced` in the results' JSON."
    )


if __name__ == "__main__":
    publish()
