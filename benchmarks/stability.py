"""The dependence of int8 on the choice of calibration images, on validation only.

    python benchmarks/stability.py MODEL… [--workspace DIR] [--draws 5]

Makes each MODEL's int8 TFLite engine again from further draws of calibration images, everything
else equal, and compares each with the engine of the recipe's draw. Writes results/stability.md and
.json; rows of other recipes are kept.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from lesiontk.api.progress import make_progress
from lesiontk.records import Artefact, ModelFacts
from lesiontk.stages.stability import read_draws
from lesiontk.store import Store
from lesiontk.workflow.convert import measure_stability

FILE = Path(__file__).parent / "results" / "stability.json"
TARGET = "tflite:int8"


@click.command()
@click.argument("models", nargs=-1, required=True)
@click.option("--workspace", type=click.Path(path_type=Path), default="lesiontk-workspace")
@click.option("--draws", default=5, show_default=True)
def cli(models: tuple[str, ...], workspace: Path, draws: int) -> None:
    """Measure each model and write the table."""
    store = Store(workspace, make_progress())
    rows: list[dict[str, Any]] = json.loads(FILE.read_text()) if FILE.exists() else []
    for name in models:
        row = measure(store, store.resolve(name, "model"), draws)
        rows = [other for other in rows if other["recipe"] != row["recipe"]] + [row]
        rows.sort(key=lambda row: str(row["recipe"]))
        FILE.write_text(json.dumps(rows, indent=1) + "\n")
        FILE.with_suffix(".md").write_text(render(rows))


def measure(store: Store, model: Artefact, draws: int) -> dict[str, Any]:
    """Return the scores of further draws for one model, and its unquantized ones."""
    made = measure_stability(store, model, TARGET, draws)
    facts = model.read_facts(ModelFacts)
    return {
        "recipe": model.recipe_name,
        "image_size": facts.preprocessing.image_size,
        "split_hash": facts.split_hash,
        "critical": facts.critical,
        "whole": dict(facts.validation.metrics),
        **made.facts,
        "rows": [row.to_document() for row in read_draws(made)],
    }


def render(rows: Sequence[dict[str, Any]]) -> str:
    """Return the table as Markdown."""
    first = rows[0]
    lines = [
        "# Other calibration images",
        "",
        "The int8 TFLite engine of each recipe, made again from further draws of "
        f"{first['images']} training images, everything else equal. Judged on validation only "
        f"(n = {first['validation']} images, split `{first['split_hash'][:12]}`); the spread is "
        "from the least to the greatest, the recipe's own draw among them. Float is the network "
        "that was quantized.",
        "",
        "| recipe | px | draws | least agreement with the recipe's | balanced accuracy, float | "
        "int8, recipe's draw | spread | critical recall, recipe's draw | spread |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        own, spread = row["own"], row["spread"]
        lines.append(
            f"| {row['recipe']} | {row['image_size']} | {row['draws']} | "
            f"{row['least_agreement']:.3f} | {row['whole']['balanced_accuracy']:.3f} | "
            f"{own['balanced_accuracy']:.3f} | {spread['balanced_accuracy']:.3f} | "
            f"{own['critical_recall']:.3f} ({row['critical']}) | {spread['critical_recall']:.3f} |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    cli()
