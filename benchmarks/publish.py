"""Copy a finished run into the repository: result table, plots, model card, int8 engines and the
lists of calibration images and of the split.

    python benchmarks/publish.py RECIPE|BENCHMARK [--workspace DIR] [--external DIR]

Uses the benchmark of that name, or the latest of the recipe. Copies the int8 engines and their
float model, for comparison; files over 15 MB are left out, a float model of up to 60 MB has its
weights rounded to half precision. A network that was published before,
imported and compressed keeps the published training curves. With --external every engine is also
evaluated, at its frozen threshold, on the labelled images of DIR.
"""

from __future__ import annotations

import csv
import json
import shlex
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from half_weights import round_weights
from model_card import HALF, ExternalCheck, render_model_card
from published_card import update_files_section
from steps import describe_steps, shorten_orders

from lesiontk.backends.engine_facts import EngineFacts
from lesiontk.backends.stamp import stamp
from lesiontk.calibration.drawn_list import DrawnList
from lesiontk.data.dealt_split import DealtSplit
from lesiontk.data.inspection import Inspection
from lesiontk.evaluate.evaluation import ExternalEvaluation
from lesiontk.recipe import Recipe, parse_recipe, read_recipe
from lesiontk.records import Artefact, ModelFacts
from lesiontk.report.drawing import style_of_engines
from lesiontk.report.pareto_plot import plot_pareto
from lesiontk.report.result_table import (
    operating_points_from_benchmark,
    recalls_from_benchmark,
    table_from_benchmark,
    table_from_external,
)
from lesiontk.report.tables import list_points
from lesiontk.stages.bench import read_benchmark
from lesiontk.stages.evaluate import read_assessment
from lesiontk.store import Store
from lesiontk.workflow.calibration_lists import write_list
from lesiontk.workflow.evaluate import evaluate_external
from lesiontk.workflow.lineage import (
    engines_of,
    find_evaluation,
    model_of,
    recipe_of,
    trained_of,
    training_seconds,
)

HERE = Path(__file__).parent
MAX_BYTES = 15_000_000


@click.command()
@click.argument("reference")
@click.option("--workspace", type=click.Path(path_type=Path), default="lesiontk-workspace")
@click.option("--external", type=click.Path(exists=True, file_okay=False, path_type=Path),
              help="Labelled images from elsewhere, as ISIC 2018's validation set.")  # fmt: skip
@click.option("--external-name", help="What to call them; default: the folder's name.")
@click.option("--parent/--no-parent", default=True, show_default=True, help="The float model, too.")
def publish(
    reference: str,
    workspace: Path,
    external: Path | None,
    external_name: str | None,
    parent: bool,
) -> None:
    """Write benchmarks/results/RECIPE.* and benchmarks/engines/RECIPE/."""
    store = Store(workspace)
    named = reference.startswith("benchmark-")
    benchmark = store.resolve(reference if named else f"latest:{reference}", "benchmark")
    recipe = benchmark.recipe_name
    timed = {
        row.target: store.parent(benchmark, f"engine:{row.target}")
        for row in read_benchmark(benchmark).rows
        if not row.reference
    }
    model = model_of(store, next(iter(timed.values())))
    trained = trained_of(store, model)
    images = store.parent(model, "images")
    split = store.parent(images, "split")
    facts = model.read_facts(ModelFacts)
    sizes = dict(store.parent(split, "inspection").read_facts(Inspection).sizes)
    document = read_benchmark(benchmark)
    checked: ExternalCheck | None = None
    if external is not None:
        engines = check_external(store, benchmark, external)
        checked = ExternalCheck(external_name or external.resolve().name, engines)
    course = read_course(store, trained, recipe)
    seconds = training_seconds(store, model) - training_seconds(store, trained) + course.seconds
    folder = HERE / "engines" / recipe
    folder.mkdir(parents=True, exist_ok=True)
    shown: list[EngineFacts] = []
    left_out: list[str] = []
    calibration: Artefact | None = None
    for target, artefact in {**engines_of(store, model), **timed}.items():
        engine = artefact.read_facts(EngineFacts)
        wanted = parent if target == "keras:float32" else engine.precision == "int8"
        if not wanted:
            continue
        if "calibration" in artefact.manifest.parents:
            calibration = store.parent(artefact, "calibration")
        if engine.size_bytes <= MAX_BYTES:
            copy_engine(store, artefact, folder)
            shown.append(engine)
        else:
            click.echo(f"{target} is over {MAX_BYTES} bytes; left out")
            left_out.append(target)
            if target == "keras:float32" and engine.size_bytes <= 4 * MAX_BYTES:
                round_weights(artefact.file(engine.file), folder / HALF)
    chosen = recipe_of(model).model_dump(mode="json")
    chosen["data"] = {**chosen["data"], "path": None}  # without the path of the data
    chosen["imported"] = None  # the command trains it
    chosen["compress"] = shorten_orders(chosen["compress"], HERE.parent)
    weights = Path(chosen["model"]["weights"])
    if weights.is_file():
        chosen["model"] = {**chosen["model"], "weights": weights.name}
    command = describe_command(chosen)
    card = render_model_card(
        recipe=chosen,
        model=facts,
        training_seconds=seconds,
        split=split.read_facts(DealtSplit),
        calibration=calibration.read_facts(DrawnList) if calibration else None,
        benchmark=document,
        engines=shown,
        sizes=sizes,
        command=command,
        left_out=left_out,
        half=(folder / HALF).is_file(),
        external=checked,
    )
    (folder / "README.md").write_text(update_files_section(card, folder))
    results = HERE / "results"
    results.mkdir(exist_ok=True)
    for name, file in course.curves.items():
        if file != results / name:
            shutil.copyfile(file, results / name)
    publish_split(split)
    points = list_points(document)
    picture = plot_pareto(points, style_of_engines([point.name for point in points]))
    (results / f"{recipe}_pareto.svg").write_bytes(picture.content)
    if calibration is not None:
        publish_calibration(recipe, calibration)
    results_document = {
        "recipe": chosen,
        "split": split.read_facts(DealtSplit).to_document(),
        "sizes": sizes,
        "model": facts.to_document(),
        "trained": course.facts,
        "steps": [step.to_document() for step in describe_steps(facts)],
        "training_seconds": course.seconds,
        "compression_seconds": seconds - course.seconds,
        "tools": {**model.manifest.tools, **benchmark.manifest.tools},
        "command": command,
        "benchmark": document.to_document(),
        "external": checked and checked.to_document(),
    }
    (results / f"{recipe}.json").write_text(json.dumps(results_document, indent=1) + "\n")
    counted = document.rows[0]
    (results / f"{recipe}.md").write_text(
        f"# {recipe}\n\nTest split by lesion, n = {counted.n} images, split "
        f"`{document.split_hash[:12]}`; 95 % intervals by lesion. Latency: one image, "
        f"{document.threads} thread, n = {counted.latency.n}, in turns, on "
        f"{document.machine.processor}. All figures: `{recipe}.json`; model card: "
        f"`../engines/{recipe}/README.md`.\n\n{table_from_benchmark(document)}\n"
        f"## At the frozen threshold\n\n{operating_points_from_benchmark(document)}\n"
        f"## Recall of each class\n\n{recalls_from_benchmark(document)}"
        + (
            ""
            if checked is None
            else f"\n## External check\n\n{table_from_external(checked.name, checked.engines)}"
        )
    )
    click.echo(f"wrote {folder} and {results / recipe}.*")


@dataclass(frozen=True, slots=True)
class Course:
    """The training of the network before compression: facts, seconds, files of curves."""

    facts: dict[str, Any]
    seconds: float
    curves: dict[str, Path]


def read_course(store: Store, trained: Artefact, recipe: str) -> Course:
    """Return the record of a training; for an imported network the published one."""
    facts = trained.read_facts(ModelFacts)
    names = {f"{recipe}_{file}": file for file in ("curves.csv", "curves.png")}
    if "curves.csv" in trained.manifest.files:
        curves = {name: trained.file(file) for name, file in names.items()}
        return Course(facts.to_document(), training_seconds(store, trained), curves)
    published = json.loads((HERE / "results" / f"{recipe}.json").read_text())
    if published["trained"]["parameters"] != facts.parameters:
        raise click.ClickException(f"{trained.name} is not the network that {recipe} publishes.")
    curves = {name: HERE / "results" / name for name in names}
    return Course(published["trained"], published["training_seconds"], curves)


def describe_command(chosen: Mapping[str, Any]) -> str:
    """Return the command of the training, which may differ from the recipe."""
    name, weights = chosen["name"], chosen["model"]["weights"]
    words = ["lesiontk", "run", name, "--data", "HAM10000_FOLDER"]
    if weights != read_recipe(name).model.weights:
        words += ["--weights", weights]
    trained, shipped = list_keys(parse_recipe(chosen)), list_keys(read_recipe(name))
    for key in sorted(trained.keys() - {"data.path", "data.source", "model.weights"}):
        if trained[key] != shipped[key]:
            words += ["--set", f"{key}={json.dumps(trained[key])}"]
    return shlex.join(words)


def copy_engine(store: Store, engine: Artefact, folder: Path) -> None:
    """Write an engine into the folder, with its evaluation in the file, if any."""
    name, evaluation = engine.read_facts(EngineFacts).file, find_evaluation(store, engine)
    if evaluation is None:
        shutil.copyfile(engine.file(name), folder / name)
    else:
        stamp(engine.file(name), read_assessment(evaluation), folder / name)


def list_keys(recipe: Recipe) -> dict[str, Any]:
    """Return the settings that determine the weights, by key as in ``--set``."""
    document = recipe.model_dump(mode="json", include={"data", "model", "train"})
    keys = {f"{part}.{key}": v for part, entry in document.items() for key, v in entry.items()}
    return {**keys, "compress": recipe.model_dump(mode="json")["compress"]}


def check_external(
    store: Store, benchmark: Artefact, folder: Path
) -> dict[str, ExternalEvaluation]:
    """Return target -> its evaluation on the folder, at the threshold frozen for its row."""
    targets = read_benchmark(benchmark).by_target
    return {
        target: evaluate_external(
            store,
            store.parent(benchmark, f"engine:{target}"),
            store.parent(benchmark, f"evaluation:{target}"),
            folder,
        )
        for target in targets
    }


def publish_calibration(recipe: str, calibration: Artefact) -> None:
    """Write calibration/RECIPE.csv with pixel hashes, and the record of its draw beside it."""
    path = HERE.parent / "calibration" / f"{recipe}.csv"
    path.unlink(missing_ok=True)  # a list is not overwritten
    write_list(calibration, path)


def publish_split(split: Artefact) -> None:
    """Write recipes/splits/HASH.csv, the subset of each image."""
    with split.file("split.csv").open(newline="") as stream:
        rows = csv.DictReader(stream)
        lines = [f"{row['image_id']},{row['lesion_id']},{row['subset']}\n" for row in rows]
    folder = HERE.parent / "recipes" / "splits"
    folder.mkdir(exist_ok=True)
    path = folder / f"{split.read_facts(DealtSplit).split_hash[:12]}.csv"
    path.write_text("image_id,lesion_id,subset\n" + "".join(lines))


if __name__ == "__main__":
    publish()
