"""The speed and accuracy of int8 on this CPU, with or without VNNI.

    python benchmarks/int8_by_cpu.py MODEL… [--workspace DIR]

Converts each MODEL for TFLite and ONNX Runtime, measures int8 interleaved with float32 and compares
both on the validation split. Writes results/int8_by_cpu.md and .json; rows of CPUs with other int8
instructions are kept.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np

from lesiontk.api.progress import make_progress
from lesiontk.backends import open_engine
from lesiontk.backends.onnx.backend import ONNXEngine
from lesiontk.backends.onnx.int8_kernels import EXACT
from lesiontk.backends.reference_outputs import engine_file
from lesiontk.bench.measure import measure_engines
from lesiontk.data.images import open_images
from lesiontk.evaluate.bootstrap import Estimate
from lesiontk.evaluate.comparison import compare_predictions
from lesiontk.evaluate.metrics import compute_metrics
from lesiontk.recipe import BenchRule
from lesiontk.records import Artefact
from lesiontk.report.result_table import format_estimate
from lesiontk.store import Store
from lesiontk.system.machine import describe_machine
from lesiontk.workflow.convert import convert_model

FILE = Path(__file__).parent / "results" / "int8_by_cpu.json"
WAYS = {
    "tflite:float32": ("tflite:float32", False),
    "tflite:int8": ("tflite:int8", False),
    "onnx:float32": ("onnx:float32", False),
    "onnx:int8": ("onnx:int8", False),
    "onnx:int8, 7-bit weights": ("onnx:int8", True),
}
"""Target, and whether weights have 7 bits (`--reduce-range`)."""
FAST = "onnx:int8, fast kernels"
"""ONNX Runtime's default for 8-bit weights, without the exact kernels that lesiontk sets."""
LOOSE = ["verify.min_agreement_int8=0", "verify.max_mean_drift_int8=1"]
"""An engine that loses accuracy here is shown, not rejected."""


@click.command()
@click.argument("models", nargs=-1, required=True)
@click.option("--workspace", type=click.Path(path_type=Path), default="lesiontk-workspace")
@click.option("--rounds", default=20, show_default=True)
@click.option("--resamples", default=1000, show_default=True)
def cli(models: tuple[str, ...], workspace: Path, rounds: int, resamples: int) -> None:
    """Measure each model on this machine and write the table."""
    store = Store(workspace, make_progress())
    machine = describe_machine().to_document()
    rows: list[dict[str, Any]] = json.loads(FILE.read_text()) if FILE.exists() else []
    for name in models:
        row = measure(store, store.resolve(name, "model"), rounds, resamples)
        row["machine"] = machine
        rows = [other for other in rows if identify(other) != identify(row)] + [row]
        rows.sort(key=identify)
        FILE.write_text(json.dumps(rows, indent=1) + "\n")
        FILE.with_suffix(".md").write_text(render(rows))


def identify(row: dict[str, Any]) -> tuple[str, str]:
    """Return the key of a row: the CPU's int8 instructions and the recipe."""
    return ", ".join(row["machine"]["int8_features"]), row["recipe"]


def measure(store: Store, model: Artefact, rounds: int, resamples: int) -> dict[str, Any]:
    """Return latency and validation scores of one model's engines."""
    images = open_images(store.parent(model, "images"))
    rows = images.indices("validation")
    pixels, truth = np.asarray(images.pixels[rows]), images.targets[rows]
    groups = [images.groups[row] for row in rows]
    files = {
        name: engine_file(
            convert_model(
                store, model, [target], [*LOOSE, f"quantize.reduce_range={json.dumps(reduced)}"]
            )[target]
        )
        for name, (target, reduced) in WAYS.items()
    }
    outputs = {}
    for name, path in files.items():
        with open_engine(path) as engine:
            outputs[name] = engine.predict(pixels)
    with ONNXEngine(files["onnx:int8"], 1, entries={EXACT: "0"}) as engine:
        outputs[FAST] = engine.predict(pixels)
    measured = measure_engines(
        files, pixels[:8], BenchRule(rounds=rounds, scenarios=("single_stream",)), make_progress()
    )
    found = []
    for name in outputs:
        parent = f"{name.partition(':')[0]}:float32"
        scores = compute_metrics(truth, outputs[name], images.labels)
        comparison = compare_predictions(
            truth, outputs[parent], outputs[name], images.labels, groups, resamples=resamples
        )
        timed = measured[name].latency if name in measured else None
        found.append(
            {
                "engine": name,
                "parent": None if name == parent else parent,
                "latency_ms": timed and timed.to_document(),
                "faster": timed and measured[parent].latency.median / timed.median,
                "balanced_accuracy": float(scores["balanced_accuracy"][0]),
                "difference": comparison.differences["balanced_accuracy"].to_document(),
                "agreement": comparison.agreement.to_document(),
            }
        )
    return {
        "recipe": model.recipe_name,
        "image_size": images.preprocessing.image_size,
        "split_hash": images.split_hash,
        "n": len(rows),
        "lesions": len(set(groups)),
        "rounds": rounds,
        "engines": found,
    }


def format_difference(document: dict[str, Any]) -> str:
    """Return a difference and its interval."""
    return format_estimate(Estimate.from_document(document), 3)


def render(rows: Sequence[dict[str, Any]]) -> str:
    """Return the tables as Markdown, one for each kind of CPU."""
    first = rows[0]
    parts = [
        "# int8 by CPU\n\nint8 beside the float32 engine of the same back end: median latency in "
        f"turns, one thread, batch 1, n = {first['rounds']} rounds; balanced accuracy on the "
        f"validation split, n = {first['n']} images of {first['lesions']} lesions (split "
        f"`{first['split_hash'][:12]}`), differences paired, with 95% intervals by lesion. 7-bit "
        "weights: `lesiontk quantize --int8 --reduce-range`, which changes nothing for TFLite. "
        "Fast kernels: 8-bit weights as ONNX Runtime takes them by itself; without VNNI products "
        f"overflow, and lesiontk and its bundles therefore set `{EXACT}`. They take the time of "
        "those with 7-bit weights.\n\n"
        "Again, on any CPU: `python benchmarks/int8_by_cpu.py MODEL… --workspace DIR`."
    ]
    for features in dict.fromkeys(identify(row)[0] for row in rows):
        same = [row for row in rows if identify(row)[0] == features]
        vnni = "with" if "vnni" in features else "without"
        lines = [
            f"## {same[0]['machine']['processor']}, {vnni} VNNI ({features})\n",
            "| recipe | px | engine | latency, ms | faster | top-1 as float | balanced accuracy | "
            "difference |",
            "| --- | --- | --- | --- | --- | --- | --- | --- |",
        ]
        for row in same:
            for engine in row["engines"]:
                derived, timed = engine["parent"] is not None, engine["latency_ms"]
                cells = [
                    row["recipe"],
                    str(row["image_size"]),
                    engine["engine"],
                    f"{timed['median']:.2f}" if timed else "–",
                    f"{engine['faster']:.2f}×" if derived and timed else "–",
                    f"{engine['agreement']['top1_agreement']:.3f}" if derived else "–",
                    f"{engine['balanced_accuracy']:.3f}",
                    format_difference(engine["difference"]) if derived else "–",
                ]
                lines.append(f"| {' | '.join(cells)} |")
        parts.append("\n".join(lines))
    return "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    cli()
