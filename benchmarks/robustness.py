"""The published int8 engines on corrupted test images, beside their networks.

    python benchmarks/robustness.py --data HAM10000 [--images 700] [RECIPE…]

For each recipe whose network is published (default: all) `tflite_int8.tflite`, which may be of a
smaller network, is compared with the network in float32 under every corruption, as `lesiontk
robustness` does. Writes results/robustness.json and .md, and a section of the model card: three to
twenty minutes a recipe on two cores.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
import numpy as np
from model_card import INT8, NETWORKS
from numpy.typing import NDArray
from published_card import update_corrupted_section
from published_images import list_published, name_lesion

from lesiontk.api.progress import make_progress
from lesiontk.backends import open_engine
from lesiontk.backends.backend import Engine
from lesiontk.data.corruptions import CORRUPTIONS
from lesiontk.data.reader import ImageReader, decode_all
from lesiontk.data.subset import draw_lesions
from lesiontk.data.tasks import load_task
from lesiontk.evaluate.operating_point import OperatingPoint
from lesiontk.evaluate.robustness import (
    ACCURACY,
    COMPARED,
    PairedOutputs,
    Robustness,
)
from lesiontk.files.whole_files import write_whole
from lesiontk.recipe import EvaluateRule
from lesiontk.records import ImageRecord
from lesiontk.report.formatting import format_level, points_estimate
from lesiontk.report.robustness_rows import (
    COLUMNS,
    describe_robustness,
    describe_shown,
    list_robustness_cells,
)
from lesiontk.stage import EngineName
from lesiontk.stages.robustness import assess_outputs, list_conditions, predict_conditions

HERE = Path(__file__).parent
ENGINES, RESULTS = HERE / "engines", HERE / "results"
TARGET = "tflite:int8"
CONDITIONS = list_conditions(CORRUPTIONS)
SEED, RULE = 0, EvaluateRule(resamples=2000)


@click.command()
@click.argument("recipes", nargs=-1)
@click.option("--data", required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--images", default=700, show_default=True)
def main(recipes: tuple[str, ...], data: Path, images: int) -> None:
    """Compare the published engines of RECIPES with their networks."""
    file = RESULTS / "robustness.json"
    known = json.loads(file.read_text()) if file.is_file() else {}
    for folder in sorted(path.parent for path in ENGINES.glob(f"*/{INT8}")):
        network = next((folder / name for name in NETWORKS if (folder / name).is_file()), None)
        if network is None or (recipes and folder.name not in recipes):
            continue
        known[folder.name] = compare_engine(network, folder / INT8, data, images).to_document()
        found = {name: Robustness.from_document(known[name]) for name in sorted(known)}
        card = folder / "README.md"
        text = json.dumps({name: row.to_document() for name, row in found.items()}, indent=1)
        write_whole(
            {
                file: f"{text}\n".encode(),
                file.with_suffix(".md"): render_page(found).encode(),
                card: update_corrupted_section(card.read_text(), found[folder.name]).encode(),
            }
        )


def compare_engine(network: Path, engine: Path, data: Path, images: int) -> Robustness:
    """Return what corruptions cost an engine beyond what they cost its network."""
    recipe = engine.parent.name
    with open_engine(network, threads=2) as before, open_engine(engine, threads=2) as after:
        split_hash, task = after.spec.split_hash, load_task(after.spec.task)
        listed = list_published(split_hash, recipe, data)
        rows = [record for record, subset in listed if subset == "test"]
        groups = [name_lesion(row) for row in rows]
        targets = np.array([task.label_index(row.diagnosis) for row in rows], dtype=np.int64)
        places = draw_lesions([task.labels[t] for t in targets], groups, images, SEED)
        outputs = predict(data, [rows[place] for place in places], (before, after), recipe)
        points = (read_point(before, recipe), read_point(after, recipe))
    return assess_outputs(
        PairedOutputs(
            y_true=targets[places],
            parent=outputs[0],
            engine=outputs[1],
            labels=task.labels,
            groups=[groups[place] for place in places],
            points=points,
        ),
        CONDITIONS,
        TARGET,
        EngineName("keras:float32", reference=TARGET in read_results(recipe).get("replaced", {})),
        available=len(rows),
        split_hash=split_hash,
        rule=RULE,
    )


def predict(
    data: Path, records: list[ImageRecord], engines: tuple[Engine, Engine], name: str
) -> NDArray[np.float32]:
    """Return the probabilities [2, K, N, C] of both engines under the K conditions."""
    found = []
    with (
        ImageReader(data) as reader,
        make_progress().task(f"{name}: predicting", len(records)) as advance,
    ):
        pictures = decode_all(reader, records, workers=2, transform=lambda picture: picture)
        for picture, record in zip(pictures, records, strict=True):
            found.append(predict_conditions(engines, picture, record.image_id, CONDITIONS))
            advance(1)
    return np.stack(found, axis=2)


def read_point(engine: Engine, recipe: str) -> OperatingPoint:
    """Return the threshold in an engine's file, or that of the float32 network in the results."""
    if engine.assessment is not None and engine.assessment.operating_point is not None:
        return engine.assessment.operating_point
    rows = read_results(recipe)["benchmark"]["rows"]
    point = next(row for row in rows if row["target"] == "keras:float32")["operating_point"]
    return OperatingPoint(point["rule"], point["threshold"], tuple(point["positive"]))


def read_results(recipe: str) -> dict[str, Any]:
    """Return the document of a recipe's published results."""
    document: dict[str, Any] = json.loads((RESULTS / f"{recipe}.json").read_text())
    return document


def render_page(found: dict[str, Robustness]) -> str:
    """Return the results as Markdown."""
    lines = [
        "# Compression on corrupted images",
        "",
        "Written by `benchmarks/robustness.py`. Does int8, or a smaller network in int8, cost more "
        "on pictures with hair, blur, JPEG artefacts, or in other light? Each corruption has three "
        "severities ([what they are](../../docs/benchmarks.md)). Nothing was chosen from these "
        f"images. In brackets {format_level(RULE.confidence)} intervals over lesions. Differences "
        "are in percentage points, negative where the engine loses more than its network; the mean "
        f"is over all {len(CONDITIONS) - 1} corruptions. `@trained`: the network before "
        "compression.",
        "",
        "| recipe | images | " + " | ".join(f"mean difference: {name}" for name in COMPARED)
        + f" | corruptions under which more {ACCURACY} is lost |",
        "| --- | --- | " + "--- | " * len(COMPARED) + "--- |",
    ]  # fmt: skip
    for recipe, row in found.items():
        means = [points_estimate(row.overall[name]) for name in COMPARED]
        cells = [f"{mean.value} ({mean.interval})" if mean.interval else mean.value
                 for mean in means]  # fmt: skip
        shown = f"{len(row.list_shown())} of {len(row.results)}"
        lines.append(" | ".join(["| " + recipe, str(row.n), *cells, shown + " |"]))
    for recipe, row in found.items():
        lines += [
            "",
            f"## {recipe}",
            "",
            f"{describe_robustness(row)} {describe_shown(row)}",
            "",
            "| " + " | ".join(COLUMNS) + " |",
            "| --- | --- " + "| ---: " * (len(COLUMNS) - 2) + "|",
            *("| " + " | ".join(cells) + " |" for cells in list_robustness_cells(row)),
        ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
