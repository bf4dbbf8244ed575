"""The published engines at 90 % specificity: how many malignant lesions are found there?

    python benchmarks/specificity.py --data HAM10000 [RECIPE…]

For `tflite_int8.tflite` of each recipe (default: all), and for its network in float32 where that is
published, the threshold with at least 90 % specificity on validation is applied to the test images.
Writes results/specificity.json and .md: a minute a recipe on two cores.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
from model_card import INT8, NETWORKS
from published_images import read_published_images

from lesiontk.backends import open_engine
from lesiontk.backends.backend import Engine
from lesiontk.data.images import ImageSet
from lesiontk.data.tasks import load_task
from lesiontk.document import Record
from lesiontk.evaluate.bootstrap import Estimate
from lesiontk.evaluate.operating_point import evaluate_operating_point, freeze_operating_point
from lesiontk.files.whole_files import write_whole
from lesiontk.records import Preprocessing
from lesiontk.report.result_table import format_estimate

HERE = Path(__file__).parent
ENGINES, RESULTS = HERE / "engines", HERE / "results" / "specificity.json"
FILES = {**dict.fromkeys(NETWORKS, "float32"), INT8: "TFLite int8"}
RULE, BATCH = "specificity:0.9", 64


@dataclass(frozen=True, slots=True)
class AtSpecificity(Record):
    """A published file at its threshold, on the `n` test images, `positives` of them malignant."""

    recipe: str
    file: str
    threshold: float
    n: int
    positives: int
    sensitivity: Estimate
    specificity: Estimate


@click.command()
@click.argument("recipes", nargs=-1)
@click.option("--data", required=True, type=click.Path(exists=True, path_type=Path))
def main(recipes: tuple[str, ...], data: Path) -> None:
    """Judge the published engines of RECIPES."""
    known = read_results() if RESULTS.is_file() else []
    for folder in sorted(ENGINES.iterdir()):
        if folder.is_dir() and (not recipes or folder.name in recipes):
            made = judge_folder(folder, data)
            known = [row for row in known if row.recipe != folder.name] + made
            known.sort(key=lambda row: (row.recipe, [*FILES].index(row.file)))
            text = json.dumps([row.to_document() for row in known], indent=1)
            page = render_page(known)
            write_whole({RESULTS: f"{text}\n".encode(), RESULTS.with_suffix(".md"): page.encode()})


def read_results() -> list[AtSpecificity]:
    """Return the published rows."""
    return [AtSpecificity.from_document(row) for row in json.loads(RESULTS.read_text())]


def judge_folder(folder: Path, data: Path) -> list[AtSpecificity]:
    """Return the results of a folder's files; pictures of one preprocessing are decoded once."""
    images: dict[Preprocessing, ImageSet] = {}
    made = []
    for file in (folder / name for name in FILES):
        if file.is_file():
            with open_engine(file, threads=2) as engine:
                size = engine.spec.preprocessing
                if size not in images:
                    images[size] = read_published_images(
                        engine.spec, folder.name, data, lambda _, subset: subset != "train"
                    )
                made.append(judge(file, engine, images[size]))
    return made


def judge(file: Path, engine: Engine, images: ImageSet) -> AtSpecificity:
    """Return a published file's results at the threshold that it gets on validation."""
    parts = range(0, len(images.pixels), BATCH)
    predicted = np.concatenate([engine.predict(images.pixels[a : a + BATCH]) for a in parts])
    validation, test = images.indices("validation"), images.indices("test")
    point = freeze_operating_point(
        images.targets[validation],
        predicted[validation],
        images.labels,
        load_task(images.task).positive,
        RULE,
    )
    found = evaluate_operating_point(
        point,
        images.targets[test],
        predicted[test],
        images.labels,
        [images.groups[row] for row in test],
        resamples=2000,
    )
    return AtSpecificity(
        recipe=file.parent.name,
        file=file.name,
        threshold=point.threshold,
        n=len(test),
        positives=found.positives,
        sensitivity=found.sensitivity,
        specificity=found.specificity,
    )


def render_page(rows: list[AtSpecificity]) -> str:
    """Return the results as Markdown."""
    lines = [
        "# Sensitivity at 90 % specificity",
        "",
        f"Written by `benchmarks/specificity.py`. On the {rows[0].n} test images, "
        f"{rows[0].positives} of them malignant (akiec, bcc, mel), at the lowest threshold with at "
        "least 90 % specificity on validation: each file has its own. In brackets 95 % intervals "
        "over lesions, which exclude the choice of the threshold. TFLite int8 may be of a smaller "
        "network (see its model card).",
        "",
        "| recipe | file | threshold | sensitivity | specificity |",
        "| --- | --- | ---: | ---: | ---: |",
    ]
    lines += [
        f"| [{row.recipe}](../engines/{row.recipe}/README.md) | {FILES[row.file]} | "
        f"{row.threshold:.3f} | {format_estimate(row.sensitivity)} | "
        f"{format_estimate(row.specificity)} |"
        for row in rows
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
