"""Let engines of a compressed network take the place of the published ones of their targets.

    python benchmarks/publish_engine.py BENCHMARK TARGET… [--workspace DIR]

An engine that passed the recipe's gate replaces the larger one; the whole network's model and the
engines of other targets stay. Writes the engines into engines/RECIPE/, their figures into
results/RECIPE.json (`replaced`), and what they are into the model card.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from lesiontk.backends.answers import engine_file
from lesiontk.backends.stamp import stamp
from lesiontk.bench.bench_stage import read_benchmark
from lesiontk.bench.rows import emulated_by, name_target
from lesiontk.calibration.calibrate_stage import read_calibration
from lesiontk.calibration.draw import read_list
from lesiontk.compress.history import find_trained
from lesiontk.evaluate.evaluate_stage import read_assessment
from lesiontk.evaluate.verdict import read_verdicts
from lesiontk.records import Artefact
from lesiontk.relatives import model_of, recipe_of, trained_of, training_seconds
from lesiontk.report.published_card import drop_rows, update_files_section
from lesiontk.report.result_table import format_estimate
from lesiontk.report.tables import describe_steps, shorten_orders
from lesiontk.report.wording import name_backend
from lesiontk.store import Store

HERE = Path(__file__).parent
SECTION, BEFORE = "## Compressed", "## Quantization"
"""The section of a model card that tells of the engines, and the one that it is put before."""


@click.command()
@click.argument("reference")
@click.argument("targets", nargs=-1, required=True)
@click.option("--workspace", type=click.Path(path_type=Path), default="lesiontk-workspace")
def publish(reference: str, targets: tuple[str, ...], workspace: Path) -> None:
    """Publish the engines of TARGETS of a benchmark, if they passed their recipe's gate."""
    store = Store(workspace)
    benchmark = store.resolve(reference, "benchmark")
    recipe, document = benchmark.recipe_name, read_benchmark(benchmark)
    engines = {target: store.parent(benchmark, f"engine:{target}") for target in targets}
    model = model_of(store, engines[targets[0]])
    trained = trained_of(store, model)
    file = HERE / "results" / f"{recipe}.json"
    published = json.loads(file.read_text())
    if trained.facts["parameters"] != published["trained"]["parameters"]:
        raise click.ClickException(f"{trained.name} is not the network that {recipe} publishes.")
    steps = describe_steps(model.facts, model.stage)
    made = {
        "parameters": model.facts["parameters"],
        "validation": model.facts["validation"],
        "kept_recalls": model.facts.get("kept_recalls"),
        "steps": steps[find_trained(step["step"] for step in steps) + 1 :],
        "compress": shorten_orders(list(recipe_of(model).compress), HERE.parent),
        "seconds": training_seconds(store, model) - training_seconds(store, trained),
    }
    replaced = published.setdefault("replaced", {})
    for target, engine in engines.items():
        if "calibration" in engine.manifest["parents"]:
            check_calibration(store, engine, recipe)
        replaced[target] = {
            "file": engine_file(engine).name,
            "row": next(row for row in document["rows"] if name_target(row) == target),
            "gate": passed_gate(document, target),
            "benchmark": benchmark.name,
            **made,
            "critical": document["critical"],
            "machine": document["machine"],
        }
    if {entry.get("benchmark") for entry in replaced.values()} != {benchmark.name}:
        raise click.ClickException("engines of another benchmark stand there: replace all at once.")
    folder = HERE / "engines" / recipe
    for target, engine in engines.items():
        path = engine_file(engine)
        assessment = read_assessment(store.parent(benchmark, f"evaluation:{target}"))
        stamp(path, assessment, folder / path.name)
        click.echo(f"wrote {folder / path.name}")
    file.write_text(json.dumps(published, indent=1) + "\n")
    card = (folder / "README.md").read_text()
    card = drop_rows(tell_engines(card, replaced), replaced)
    (folder / "README.md").write_text(update_files_section(card, folder))


def passed_gate(document: Mapping[str, Any], target: str) -> list[Mapping[str, Any]]:
    """Return the verdicts on a target; `ClickException` unless every gate passed."""
    verdicts = [verdict for verdict in read_verdicts(document) if verdict.engine == target]
    missed = [verdict.describe() for verdict in verdicts if not verdict.passed]
    if missed or not verdicts:
        raise click.ClickException(f"{target}: {'; '.join(missed) or 'no gate judged it'}.")
    return [verdict.to_json() for verdict in verdicts]


def check_calibration(store: Store, engine: Artefact, recipe: str) -> None:
    """Raise `ClickException` for an engine of other calibration images than are published."""
    drawn = [row["image_id"] for row in read_calibration(store.parent(engine, "calibration"))]
    if sorted(drawn) != sorted(read_list(recipe)):
        raise click.ClickException(
            f"{engine.name} was calibrated on other images than {recipe}'s list."
        )


def tell_engines(card: str, replaced: Mapping[str, Mapping[str, Any]]) -> str:
    """Return a model card that tells of the engines which took others' places."""
    whole, _, rest = card.partition(BEFORE)
    files = {f"- `{entry['file']}`" for entry in replaced.values()}
    lines, others = [], False
    known = {line.partition(": ")[0] for line in whole.partition(SECTION)[0].splitlines()}
    added = [f"{start}: of a smaller network, see Compressed" for start in sorted(files - known)]
    for line in whole.partition(SECTION)[0].splitlines():
        if line.startswith("- `"):
            lines, added = lines + added, []
        line = line.replace(
            "Too large to be here: ", "Too large to be here, of the whole network: "
        )
        start = line.partition(": ")[0]
        lines.append(f"{start}: of a smaller network, see Compressed" if start in files else line)
        others |= start.startswith(INT8_FILES) and start not in files
    told = "\n".join([*lines, SECTION, "", describe_engines(replaced, others=others), "", BEFORE])
    return told + rest


INT8_FILES = ("- `tflite_int8", "- `onnx_int8", "- `tensorrt_int8")


def describe_engines(replaced: Mapping[str, Mapping[str, Any]], *, others: bool) -> str:
    """Return what the engines are that took others' places, and what they cost, in Markdown.

    `others` says whether int8 engines of the whole network stay beside them.
    """
    first = next(iter(replaced.values()))
    size, validation = first["row"]["image_size"], first["validation"]
    made = "; ".join(f"{step['step']}: {step['what']}" for step in first["steps"])
    raised = ((first.get("kept_recalls") or {}).get("bias_raised") or {}).items()
    biases = ", ".join(f"{label} by {shift:.2f}" for label, shift in raised)
    kept = f" Biases were raised to keep recalls on validation: {biases}." if biases else ""
    files = [f"`{entry['file']}`" for entry in replaced.values()]
    stay = ", and so are the other int8 engines"
    return (
        f"{', '.join(files)}: of a smaller network, "
        f"{first['parameters']:,} parameters, input [1, {size}, {size}, 3], made of the one above "
        f"in {first['seconds'] / 60:.0f} minutes here ({made}).{kept} On validation its balanced "
        f"accuracy is {validation['balanced_accuracy']:.3f} (n = {validation['n']}). Beside the "
        "network as it was trained, in one run on "
        f"{first['machine']['processor']} (n = {first['row']['latency_ms']['n']} rounds), on the "
        f"test split (n = {first['row']['n']}):\n\n"
        + "\n".join(describe_engine(entry) for entry in replaced.values())
        + f"\n\nAll passed the recipe's gate. The tables below are of the whole network"
        f"{stay if others else ''}. Orders: `replaced` in the results' JSON."
    )


def describe_engine(entry: Mapping[str, Any]) -> str:
    """Return the figures of one engine."""
    row, critical = entry["row"], f"recall[{entry['critical']}]"
    versus, metrics = row["versus_parent"], row["metrics"]
    told = [
        f"{name.replace('_', ' ')} {format_estimate(metrics[name])}, difference "
        f"{format_estimate(versus['differences'][name])}"
        for name in ("balanced_accuracy", critical, "accuracy")
    ]
    speed = (
        "emulated here by ONNX Runtime, which tells nothing of its speed; "
        if emulated_by(row)
        else f"{versus['speedup']:.2f}× faster, "
    )
    parent = name_backend(versus["parent"].partition(":")[0])
    return (
        f"- `{entry['file']}`, beside float32 {parent}: {speed}{versus['size_ratio']:.2f}× "
        f"smaller; {'; '.join(told)}; specificity at the frozen threshold, difference "
        f"{format_estimate(versus['differences']['specificity'])}"
    )


if __name__ == "__main__":
    publish()
