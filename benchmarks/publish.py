"""Copy a finished run into the repository: result table, model card, int8 engines, curves.

    python benchmarks/publish.py RECIPE [--workspace DIR]

Takes the latest benchmark of the recipe. Engines over 20 MB are left out.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import click

from lesiontk.bench.bench_stage import read_benchmark
from lesiontk.report.model_card import render_model_card
from lesiontk.report.result_table import table_from_benchmark
from lesiontk.store import Store
from lesiontk.workflow import engines_of, model_of

HERE = Path(__file__).parent
MAX_BYTES = 20_000_000


@click.command()
@click.argument("recipe")
@click.option("--workspace", type=click.Path(path_type=Path), default="lesiontk-workspace")
@click.option("--training-seconds", type=float, help="If they were counted elsewhere.")
def publish(recipe: str, workspace: Path, training_seconds: float | None) -> None:
    """Write benchmarks/results/RECIPE.* and benchmarks/engines/RECIPE/."""
    store = Store(workspace)
    benchmark = store.resolve(f"latest:{recipe}", "benchmark")
    roles = benchmark.manifest["parents"]
    engine = store.parent(benchmark, next(role for role in roles if role.startswith("engine:")))
    model = model_of(store, engine)
    images = store.parent(model, "images")
    split = store.parent(images, "split")
    document = read_benchmark(benchmark)
    seconds = float(training_seconds or model.manifest["seconds"])
    folder = HERE / "engines" / recipe
    folder.mkdir(parents=True, exist_ok=True)
    files, calibration = [], None
    for target, artefact in engines_of(store, model).items():
        if artefact.facts["precision"] != "int8":
            continue
        calibration = store.parent(artefact, "calibration")
        if artefact.facts["size_bytes"] <= MAX_BYTES:
            name = str(artefact.facts["file"])
            shutil.copyfile(artefact.file(name), folder / name)
            files.append(name)
        else:
            click.echo(f"{target} is over {MAX_BYTES} bytes; left out")
    chosen = dict(model.manifest["recipe"])
    chosen["data"] = {**chosen["data"], "path": None}  # where the data lay is nobody's business
    card = render_model_card(
        recipe=chosen,
        model=model.facts,
        training_seconds=seconds,
        split=split.facts,
        calibration=calibration.facts if calibration else None,
        benchmark=document,
        files=files,
        command=f"lesiontk run {recipe} --data HAM10000_FOLDER",
    )
    (folder / "README.md").write_text(card)
    results = HERE / "results"
    results.mkdir(exist_ok=True)
    shutil.copyfile(model.file("curves.csv"), results / f"{recipe}_curves.csv")
    shutil.copyfile(model.file("curves.png"), results / f"{recipe}_curves.png")
    facts = {
        "recipe": chosen,
        "split": dict(split.facts),
        "model": dict(model.facts),
        "training_seconds": seconds,
        "tools": {**model.manifest["tools"], **benchmark.manifest["tools"]},
        "command": f"lesiontk run {recipe} --data HAM10000_FOLDER",
        "benchmark": document,
    }
    (results / f"{recipe}.json").write_text(json.dumps(facts, indent=1) + "\n")
    counted = document["rows"][0]
    (results / f"{recipe}.md").write_text(
        f"# {recipe}\n\nTest split by lesion, n = {counted['n']} images, split "
        f"`{document['split_hash'][:12]}`; 95 % intervals by lesion. Latency: one image, "
        f"{document['threads']} thread, n = {counted['latency_ms']['n']}, in turns, on "
        f"{document['machine']['processor']}. All figures: `{recipe}.json`; model card: "
        f"`../engines/{recipe}/README.md`.\n\n{table_from_benchmark(document)}"
    )
    click.echo(f"wrote {folder} and {results / recipe}.*")


if __name__ == "__main__":
    publish()
