"""Search for compressed and quantized engines of two published networks, beside those made by hand.

    python benchmarks/search_study.py --data DIR [--workspace DIR]

Runs the search of search/space.yaml from the published float networks: its candidates are compared
on validation, its front is evaluated on the test images once. The front and the published int8
engines are then timed together, each in a process of its own, in random order. Writes
results/search_study.md, .json and .svg. After an interruption the same command continues.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
from tables import find_row

from lesiontk.api.progress import make_progress
from lesiontk.backends.reference_outputs import engine_file
from lesiontk.bench.measure import time_engines
from lesiontk.bench.timing import Timing
from lesiontk.document import Record
from lesiontk.evaluate.bootstrap import Estimate
from lesiontk.progress import Progress
from lesiontk.recipe import BenchRule
from lesiontk.report.drawing import GREY, MarkerStyle
from lesiontk.report.pareto import EnginePoint
from lesiontk.report.pareto_plot import plot_pareto
from lesiontk.report.result_table import format_estimate
from lesiontk.report.search_words import describe_assignment, describe_winner
from lesiontk.search.result import SearchResult
from lesiontk.store import Store
from lesiontk.system.machine import describe_machine
from lesiontk.workflow.search import run_search

HERE = Path(__file__).parent
RESULTS, ENGINES = HERE / "results", HERE / "engines"
SPACE = HERE / "search" / "space.yaml"
PUBLISHED = ("cnn_7class", "efficientnet_lite0_7class")
SHORT = re.compile(r"benchmarks/search/|_trained\.yaml")
FOUND, BY_HAND = (
    MarkerStyle(colour="#0072b2", marker="o", face="#0072b2", dashes="-"),
    MarkerStyle(colour=GREY, marker="o", face="white", dashes="--"),
)
FILES = {"tflite:int8": "tflite_int8.tflite", "onnx:int8": "onnx_int8.onnx"}


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyRow(Record):
    """An engine of the front, of trial `trial`, or a published one (None).

    `validation` is the balanced accuracy that chose it, None for a published one; the others are
    those of test images. `latency_ms` are the median and p90 of all engines in one run.
    """

    name: str
    settings: str
    trial: int | None
    validation: float | None
    balanced_accuracy: Estimate
    n: int
    lesions: int
    latency_ms: tuple[float, float | None]
    size_bytes: int


@click.command()
@click.option(
    "--data", type=click.Path(exists=True, file_okay=False, path_type=Path), required=True
)
@click.option("--workspace", type=click.Path(path_type=Path), default="lesiontk-workspace")
def study(data: Path, workspace: Path) -> None:
    """Run the search, time its front beside the published engines, and write the page."""
    store = Store(workspace, make_progress())
    result = run_search(store, SPACE, name="published", data=data).results.collect()
    front = {f"trial {n}": engine_file(store.resolve(result.figures(n).engine, "engine"))
             for n in result.front}  # fmt: skip
    published = {
        f"{recipe} {target}": ENGINES / recipe / file
        for recipe in PUBLISHED
        for target, file in FILES.items()
    }
    timings = time_together({**front, **published}, store.progress)
    rows = [*list_front_rows(result, front, timings), *list_published_rows(published, timings)]
    noise = {name: timing.list_noise() for name, timing in timings.items()}
    write_study(result, rows, noise, RESULTS)


def time_together(files: Mapping[str, Path], progress: Progress) -> dict[str, Timing]:
    """Return the single-stream latencies of all engines, in one run."""
    pixels = np.random.default_rng(0).integers(0, 256, (16, 224, 224, 3), np.uint8)
    return time_engines(files, pixels, BenchRule(), progress)


def list_front_rows(
    result: SearchResult, files: Mapping[str, Path], timings: Mapping[str, Timing]
) -> list[StudyRow]:
    """Return the rows of the front, in its order."""
    rows = []
    for number in result.front:
        name, figures = f"trial {number}", result.figures(number)
        tested = result.tests[figures.engine]
        found = tested.metrics["balanced_accuracy"]
        rows.append(
            StudyRow(
                name=name,
                settings=SHORT.sub("", describe_assignment(result.trial(number).assignment)),
                trial=number,
                validation=figures.value("balanced_accuracy"),
                balanced_accuracy=Estimate(found.value, found.low, found.high),
                n=tested.n,
                lesions=tested.lesions,
                latency_ms=(timings[name].latency.median, timings[name].latency.p90),
                size_bytes=files[name].stat().st_size,
            )
        )
    return rows


def list_published_rows(files: Mapping[str, Path], timings: Mapping[str, Timing]) -> list[StudyRow]:
    """Return the rows of the published engines, with the test figures of their results."""
    rows = []
    for name, path in files.items():
        recipe, target = name.split(" ")
        row = find_row(json.loads((RESULTS / f"{recipe}.json").read_text()), target)
        rows.append(
            StudyRow(
                name=name,
                settings="published, made by hand",
                trial=None,
                validation=None,
                balanced_accuracy=row.metrics["balanced_accuracy"],
                n=row.n or 0,
                lesions=row.lesions or 0,
                latency_ms=(timings[name].latency.median, timings[name].latency.p90),
                size_bytes=path.stat().st_size,
            )
        )
    return rows


def write_study(
    result: SearchResult, rows: Sequence[StudyRow], noise: Mapping[str, Sequence[str]], folder: Path
) -> None:
    """Write search_study.md, .json and .svg to a folder.

    `noise` maps an engine to why its latency is noisy, if it is.
    """
    folder.mkdir(exist_ok=True)
    machine = describe_machine()
    document = {
        "machine": machine.to_document(),
        "search": result.to_document(),
        "rows": [row.to_document() for row in rows],
        "noise": {name: list(reasons) for name, reasons in noise.items() if reasons},
    }
    (folder / "search_study.json").write_text(json.dumps(document, indent=1) + "\n")
    points = [
        EnginePoint(
            row.name,
            row.latency_ms[0],
            float(row.balanced_accuracy.value or 0.0),
            row.balanced_accuracy.low,
            row.balanced_accuracy.high,
            row.size_bytes,
        )
        for row in rows
    ]
    styles = {row.name: BY_HAND if row.trial is None else FOUND for row in rows}
    (folder / "search_study.svg").write_bytes(plot_pareto(points, styles).content)
    page = render(result, rows, machine.processor, len(document["noise"]))
    (folder / "search_study.md").write_text(page)


def render(result: SearchResult, rows: Sequence[StudyRow], machine: str, noisy: int) -> str:
    """Return the page."""
    counts = ", ".join(f"{number} {state}" for state, number in result.counts.items())
    winner = next((w for w in result.winners if w.metric == "balanced_accuracy"), None)
    corrected = "" if winner is None else f" {describe_winner(winner)}"
    timed = "Latencies of one run" + (f", noisy for {noisy} engines" if noisy else "")
    lines = [
        "# A search beside engines made by hand\n",
        "Compression and quantization of the published networks cnn_7class and "
        "efficientnet_lite0_7class ([space](../search/space.yaml)), chosen on validation; "
        f"{result.candidates} engines were compared ({counts}). The test images were read by the "
        f"front alone.{corrected}\n",
        f"{timed}: one image, one thread, on {machine}. In brackets 95 % intervals over lesions. "
        "Again: `python benchmarks/search_study.py --data HAM10000_FOLDER`.\n",
        "| engine | settings | validation | test | n | median ms | p90 ms | MB |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        median, p90 = row.latency_ms
        chosen = "–" if row.validation is None else f"{row.validation:.3f}"
        lines.append(
            f"| {row.name} | {row.settings} | {chosen} | {format_estimate(row.balanced_accuracy)} "
            f"| {row.n} | {median:.3g} | {'–' if p90 is None else f'{p90:.3g}'} "
            f"| {row.size_bytes / 1e6:.2f} |"
        )
    return "\n".join(lines) + "\n\n![Balanced accuracy and latency](search_study.svg)\n"


if __name__ == "__main__":
    study()
