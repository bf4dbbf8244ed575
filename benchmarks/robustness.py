"""The published int8 engines on corrupted test images, beside their networks.

    python benchmarks/robustness.py --data HAM10000 [--images 700] [RECIPE…]

For each recipe whose network is published (default: all) `tflite_int8.tflite`, which may be of a
smaller network, is compared with the network in float32 under every corruption, as `lesiontk
robustness` does. Writes results/robustness.json and .md, and a section of the model card: three to
twenty minutes a recipe on two cores.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import click
import numpy as np
from model_card import HALF
from numpy.typing import NDArray
from published_card import update_corrupted_section

from lesiontk.api.progress import make_progress
from lesiontk.backends import open_engine
from lesiontk.backends.backend import Engine
from lesiontk.data.corruptions import CORRUPTIONS, SEVERITIES
from lesiontk.data.reader import ImageReader, decode_all
from lesiontk.data.sources import SOURCES
from lesiontk.data.subset import draw_lesions
from lesiontk.data.tasks import load_task
from lesiontk.evaluate.operating_point import OperatingPoint
from lesiontk.evaluate.robustness import (
    ACCURACY,
    COMPARED,
    CorruptedResult,
    PairedOutputs,
    Robustness,
    estimate_excess,
)
from lesiontk.files.whole_files import write_whole
from lesiontk.records import ImageRecord
from lesiontk.report.formatting import format_level, points_estimate
from lesiontk.report.robustness_rows import (
    COLUMNS,
    describe_robustness,
    describe_shown,
    list_robustness_cells,
)
from lesiontk.stages.known_splits import find_split
from lesiontk.stages.robustness import CLEAN, corrupt_inputs

HERE = Path(__file__).parent
ENGINES, RESULTS = HERE / "engines", HERE / "results"
TARGET, ENGINE = "tflite:int8", "tflite_int8.tflite"
NETWORKS = ("keras_float32.keras", HALF)
CONDITIONS = ((CLEAN, 0), *((name, severity) for name in CORRUPTIONS for severity in SEVERITIES))
SEED, RESAMPLES, CONFIDENCE = 0, 2000, 0.95


@click.command()
@click.argument("recipes", nargs=-1)
@click.option("--data", required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--images", default=700, show_default=True)
def main(recipes: tuple[str, ...], data: Path, images: int) -> None:
    """Compare the published engines of RECIPES with their networks."""
    file = RESULTS / "robustness.json"
    known = json.loads(file.read_text()) if file.is_file() else {}
    for folder in sorted(path.parent for path in ENGINES.glob(f"*/{ENGINE}")):
        network = next((folder / name for name in NETWORKS if (folder / name).is_file()), None)
        if network is None or (recipes and folder.name not in recipes):
            continue
        known[folder.name] = compare_engine(network, folder / ENGINE, data, images).to_document()
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
    with open_engine(network, threads=2) as before, open_engine(engine, threads=2) as after:
        spec = after.spec
        task = load_task(spec.task)
        records, groups, available = draw_images(spec.split_hash, spec.task, data, images)
        outputs = predict(data, records, (before, after), engine.parent.name)
        points = (read_point(before, engine.parent.name), read_point(after, engine.parent.name))
    labels = [task.labels[task.label_index(record.diagnosis)] for record in records]
    counts = Counter(labels)
    clean, losses, overall = estimate_excess(
        PairedOutputs(
            y_true=np.array([task.labels.index(label) for label in labels], dtype=np.int64),
            parent=outputs[0],
            engine=outputs[1],
            labels=task.labels,
            groups=groups,
            points=points,
        ),
        resamples=RESAMPLES,
        confidence=CONFIDENCE,
        seed=SEED,
    )
    return Robustness(
        target=TARGET,
        parent="keras:float32",
        reference=TARGET in read_results(engine.parent.name).get("replaced", {}),
        n=len(records),
        lesions=len(set(groups)),
        available=available,
        images={label: counts[label] for label in task.labels},
        split_hash=spec.split_hash,
        clean=clean,
        results=tuple(
            CorruptedResult(name, severity, CORRUPTIONS.get(name).describe(severity), loss)
            for (name, severity), loss in zip(CONDITIONS[1:], losses, strict=True)
        ),
        overall=overall,
        confidence=CONFIDENCE,
        resamples=RESAMPLES,
        seed=SEED,
    )


def draw_images(
    split_hash: str, task_name: str, data: Path, images: int
) -> tuple[list[ImageRecord], list[str], int]:
    """Return test images balanced over the classes, their lesions, and how many there are."""
    split, task = find_split(split_hash, []), load_task(task_name)
    if split is None:
        raise click.ClickException(f"the split {split_hash} is not among those of lesiontk.")
    listed = SOURCES.get("ham10000")().read(data).records
    rows = [record for record in listed if split.images.get(record.image_id) == "test"]
    groups = [record.lesion_id or record.image_id for record in rows]
    labels = [task.labels[task.label_index(record.diagnosis)] for record in rows]
    places = draw_lesions(labels, groups, images, SEED)
    return [rows[place] for place in places], [groups[place] for place in places], len(rows)


def predict(
    data: Path, records: list[ImageRecord], engines: tuple[Engine, Engine], name: str
) -> list[NDArray[np.float32]]:
    """Return the probabilities [K, N, C] of each engine under the K conditions."""
    sizes = [engine.spec.preprocessing for engine in engines]
    found: list[list[NDArray[np.float32]]] = [[], []]
    with (
        ImageReader(data) as reader,
        make_progress().task(f"{name}: predicting", len(records)) as advance,
    ):
        pictures = decode_all(reader, records, workers=2, transform=lambda picture: picture)
        for picture, record in zip(pictures, records, strict=True):
            inputs = corrupt_inputs(picture, record.image_id, CONDITIONS, sizes)
            for engine, seen, kept in zip(engines, inputs, found, strict=True):
                kept.append(engine.predict(seen))
            advance(1)
    return [np.stack(kept, axis=1) for kept in found]


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
        f"images. In brackets {format_level(CONFIDENCE)} intervals over lesions. Differences are "
        "in percentage points, negative where the engine loses more than its network; the mean is "
        f"over all {len(CONDITIONS) - 1} corruptions. `@trained`: the network before compression.",
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
