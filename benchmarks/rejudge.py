"""Evaluate published engines again: results from their files, gates against the trained network.

    python benchmarks/rejudge.py --data HAM10000 [--parent FILE.keras] [RECIPE…]

For each recipe (default: all) every engine file beside the card runs on the validation images, on
which its threshold and temperature are frozen again, and on those of test. Its row in
results/RECIPE.json gets the new results; latencies are kept. The parent is `keras_float32.keras`
beside the card, if that is the trained network. For a compressed network it may be `--parent`, the
result of `widen_engine.py` from an int8 engine. Without a parent, differences of a file whose
outputs have changed have no interval, and gates against it are not shown. Then files and cards are
written again (`restamp.py`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray
from published_card import list_engine_files, read_replaced
from published_images import find_published_split
from restamp import restamp

from lesiontk.api.progress import make_progress
from lesiontk.backends import find_backend, open_engine
from lesiontk.bench.benchmark import Benchmark, EngineRow, ParentComparison
from lesiontk.data.preprocess import preprocess_image
from lesiontk.data.reader import ImageReader, decode_many
from lesiontk.data.sources import SOURCES
from lesiontk.data.tasks import Task, load_task
from lesiontk.evaluate.bootstrap import Estimate
from lesiontk.evaluate.comparison import Comparison, compare_predictions
from lesiontk.evaluate.default_gates import expand_gates
from lesiontk.evaluate.device_gate import DeviceFigures
from lesiontk.evaluate.evaluation import EngineEvaluation, evaluate_engine
from lesiontk.evaluate.gate import GateInput, judge_engines
from lesiontk.evaluate.loss_bounds import Points, Predictions
from lesiontk.evaluate.operating_point import (
    OperatingPoint,
    freeze_operating_point,
    match_specificity,
)
from lesiontk.evaluate.temperature import fit_temperature
from lesiontk.evaluate.verdict import Unresolved
from lesiontk.recipe import EvaluateRule
from lesiontk.records import ImageRecord
from lesiontk.stage import EngineName

HERE = Path(__file__).parent
PARENT = "keras:float32"
ROUNDED_PARENT = "the network as it was trained, weights rounded to 8 bits"
SAME = 1e-5
"""The maximum difference of a probability between equivalent engines in float32."""
NOT_TIMED = "latency was not measured again"


@dataclass(frozen=True, slots=True)
class Outputs:
    """A file's probabilities [N, C] for N images, and the subset of each image."""

    probabilities: NDArray[np.float32]
    truth: NDArray[np.int64]
    lesions: NDArray[np.str_]
    on_test: NDArray[np.bool_]

    def of(self, *, test: bool) -> tuple[NDArray[np.int64], NDArray[np.float32], list[str]]:
        """Return true labels, probabilities and lesions of the test or the validation images."""
        chosen = self.on_test if test else ~self.on_test
        return self.truth[chosen], self.probabilities[chosen], [*map(str, self.lesions[chosen])]


@dataclass(frozen=True, slots=True)
class Figures:
    """One engine's outputs, the point frozen on validation, and its figures on test."""

    outputs: Outputs
    point: OperatingPoint
    judged: EngineEvaluation


@click.command()
@click.argument("recipes", nargs=-1)
@click.option("--data", required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--parent", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--outputs",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder for the outputs of each file, so that each runs once.",
)
def main(recipes: tuple[str, ...], data: Path, parent: Path | None, outputs: Path | None) -> None:
    """Evaluate the published engines of RECIPES again."""
    for folder in sorted(path for path in (HERE / "engines").iterdir() if path.is_dir()):
        if not recipes or folder.name in recipes:
            file = HERE / "results" / f"{folder.name}.json"
            published = json.loads(file.read_text())
            renewed = rejudge(folder, published, EngineRunner(data, outputs), parent)
            file.write_text(json.dumps(renewed, indent=1) + "\n")
            restamp(folder, renewed)
            for verdict in renewed["benchmark"]["gate"]:
                click.echo(f"{folder.name} {verdict['engine']}: {verdict['gate']} "
                           f"{verdict['outcome'].replace('_', ' ')}")  # fmt: skip


def rejudge(
    folder: Path, published: Mapping[str, Any], asker: EngineRunner, parent: Path | None
) -> dict[str, Any]:
    """Return the results of a recipe with rows and verdicts of the published files."""
    benchmark = Benchmark.from_document(published["benchmark"])
    replaced = read_replaced(published)
    others = {target: entry.row for target, entry in replaced.items()}
    rule = EvaluateRule(**published["recipe"]["evaluate"])
    files = {name_file(path): path for path in list_engine_files(folder)}
    task = load_task(benchmark.task)
    own = None if PARENT in replaced else files.get(PARENT)
    known = {
        path: measure(asker.ask(path, task), task, rule, None) for path in (own, parent) if path
    }
    rows = benchmark.by_target
    renewed: dict[str, EngineRow] = {}
    judged = []
    for target, path in files.items():
        row = others.get(target) or rows.get(EngineName(target))
        whole = own == path
        # A specified parent has rounded weights, so it is used for compressed networks only.
        against = own or (parent if target in replaced else None)
        before = known.get(against) if against else None
        keep = None
        if not whole:
            # Without the parent: the sensitivity that the published point was made to keep.
            published_row = row or next(iter(rows.values()))
            keep = before.point if before else published_row.point.point
        found = measure(asker.ask(path, task), task, rule, keep)
        size = len(find_backend(path)().split_record(path.read_bytes())[0])
        if row is None:
            row = begin_row(path, rows[EngineName(PARENT)])
        renewed[target] = renew_row(row, found, size, before, rule)
        _report_change(folder.name, target, row, renewed[target])
        if not whole:
            name = PARENT if against == own else ROUNDED_PARENT
            judged.append(describe_judged(target, found, before, name, task, renewed[target]))
    gates = expand_gates(["default"], task.positive)
    verdicts = judge_engines(judged, gates, rule)
    for target, row in rows.items():
        if target not in files:
            renewed[target] = renew_unpublished(row, known.get(own) if own else None, rule)
    made = dict(published)
    # Gates do not affect training: the recipe keeps the gates of its engines.
    made["recipe"] = {**published["recipe"], "gate": ["default"], "unresolved": "warn"}
    made["benchmark"] = replace(
        benchmark,
        rows=tuple(row if row.target in replaced else renewed[row.target] for row in rows.values())
        + tuple(
            renewed[target] for target in files if target not in rows and target not in replaced
        ),
        gates=tuple(gates),
        unresolved=Unresolved.WARN,
        gate=tuple(verdicts),
    ).to_document()
    if replaced:
        made["replaced"] = {
            target: replace(
                entry,
                row=renewed[target],
                gate=tuple(v for v in verdicts if v.engine == target),
            ).to_document()
            for target, entry in replaced.items()
        }
    return made


def name_file(path: Path) -> str:
    """Return ``backend:precision`` of a published file."""
    spec = find_backend(path)().read_spec(path)
    return f"{spec.backend}:{spec.precision}"


def measure(
    outputs: Outputs,
    task: Task,
    rule: EvaluateRule,
    keep: OperatingPoint | None,
) -> Figures:
    """Return an engine's figures on test at the point frozen on validation.

    The point keeps the sensitivity that `keep` has there; without it the rule chooses.
    """
    truth, probabilities, _ = outputs.of(test=False)
    point = freeze_operating_point(
        truth, probabilities, task.labels, task.positive, rule.threshold, keep
    )
    temperature = fit_temperature(truth, probabilities)
    test_truth, test_probabilities, lesions = outputs.of(test=True)
    judged = evaluate_engine(
        "", task, point, test_truth, test_probabilities, lesions, rule, temperature
    )
    return Figures(outputs, point, judged)


def begin_row(path: Path, parent: EngineRow) -> EngineRow:
    """Return the row of a file that no benchmark measured; only its figures are to come.

    Raises `ClickException` for a file that could have been timed here: `publish.py` does that.
    """
    with open_engine(path) as engine:
        spec, execution = engine.spec, tuple(engine.describe_execution())
    row = EngineRow(
        engine=path.name,
        target=f"{spec.backend}:{spec.precision}",
        backend=spec.backend,
        precision=spec.precision,
        threads=1,
        image_size=spec.preprocessing.image_size,
        execution=execution,
        size_bytes=parent.size_bytes,
    )
    if not row.emulated_by:
        raise click.ClickException(f"{path} was published without its figures; publish it again.")
    return row


def renew_row(
    row: EngineRow, found: Figures, size: int, parent: Figures | None, rule: EvaluateRule
) -> EngineRow:
    """Return a row of a benchmark with an engine's new results."""
    renewed = replace(row, size_bytes=size).with_scores(found.judged)
    versus = row.versus_parent
    ratio = (versus.size_ratio if versus else 1.0) * row.size_bytes / size
    if parent is not None and (versus is not None or not row.metrics):
        return replace(
            renewed,
            versus_parent=ParentComparison(
                **compare(found, parent, rule).field_values(),
                parent=versus.parent if versus else PARENT,
                reference=versus is not None and versus.reference,
                speedup=versus.speedup if versus else None,
                speedup_interval=versus.speedup_interval if versus else None,
                size_ratio=ratio,
            ),
        )
    if versus is None or _values(renewed) == _values(row):
        return renewed
    shifted = replace(versus, size_ratio=ratio, differences=shift_differences(row, renewed))
    return replace(renewed, versus_parent=shifted)


def renew_unpublished(row: EngineRow, parent: Figures | None, rule: EvaluateRule) -> EngineRow:
    """Return the row of an engine whose file is not published.

    An engine whose probabilities equal the parent's within 1e-5 gets the parent's results. For
    others an interval of width 0 is removed: it is the bootstrap's for equal outputs and has no
    meaning.
    """
    versus = row.versus_parent
    if versus is None:
        return row
    if parent is not None and versus.agreement.max_absolute_drift < SAME:
        return renew_row(row, parent, row.size_bytes, parent, rule)
    differences = {
        name: Estimate(known.value, None, None) if known.low == known.high else known
        for name, known in versus.differences.items()
    }
    return replace(row, versus_parent=replace(versus, differences=differences))


def compare(found: Figures, parent: Figures, rule: EvaluateRule) -> Comparison:
    """Return the changes from the parent to an engine on the test images."""
    truth, before, lesions = parent.outputs.of(test=True)
    return compare_predictions(
        truth,
        before,
        found.outputs.of(test=True)[1],
        found.judged.labels,
        lesions,
        resamples=rule.resamples,
        confidence=rule.confidence,
        seed=rule.seed,
        points=(parent.point, found.point),
    )


def shift_differences(before: EngineRow, after: EngineRow) -> dict[str, Estimate]:
    """Return the differences from a parent that was not kept, moved by what the engine moved."""
    shifted = {}
    for name, known in before.versus_parent.differences.items() if before.versus_parent else ():
        old, new = _value(before, name), _value(after, name)
        if old is not None and new is not None:
            value = None if known.value is None else known.value + new - old
            shifted[name] = Estimate(value, None, None)
    return shifted


def _values(row: EngineRow) -> dict[str, float | None]:
    """Return a row's metrics without their intervals: the same where the outputs are."""
    return {name: e.value and round(e.value, 9) for name, e in row.metrics.items()}


def _value(row: EngineRow, metric: str) -> float | None:
    estimate = row.metrics[metric] if metric in row.metrics else getattr(row.point, metric)
    value: float | None = estimate.value
    return value


def describe_judged(
    target: str,
    found: Figures,
    parent: Figures | None,
    name: str,
    task: Task,
    row: EngineRow,
) -> GateInput:
    """Return the input of the gates."""
    truth, probabilities, lesions = found.outputs.of(test=True)
    matched = None
    if parent is not None:
        matched = match_specificity(*found.outputs.of(test=False)[:2], task.labels, parent.point)
    return GateInput(
        target,
        None if parent is None else name,
        Predictions(
            truth, probabilities, task.labels, lesions, task.positive,
            None if parent is None else parent.outputs.of(test=True)[1],
            Points(None if parent is None else parent.point, found.point, matched),
        ),
        DeviceFigures((), row.size_bytes, None, row.emulated_by or NOT_TIMED),
    )  # fmt: skip


class EngineRunner:
    """Runs engine files on the validation and test images of a folder."""

    def __init__(self, data: Path, kept: Path | None) -> None:
        self._data, self._kept = data, kept
        self._records = SOURCES.get("ham10000")().read(data).records

    def ask(self, path: Path, task: Task) -> Outputs:
        """Return the file's outputs, stored or computed now."""
        content, _ = find_backend(path)().split_record(path.read_bytes())
        split_hash = find_backend(path)().read_spec(path).split_hash
        subsets = find_published_split(split_hash, str(path))
        wanted = ("validation", "test")
        records = [r for r in self._records if subsets.get(r.image_id) in wanted]
        return Outputs(
            self._probabilities(path, hashlib.sha256(content).hexdigest(), records),
            np.array([task.label_index(record.diagnosis) for record in records]),
            np.array([record.lesion_id for record in records]),
            np.array([subsets[record.image_id] == "test" for record in records]),
        )

    def _probabilities(
        self, path: Path, digest: str, records: list[ImageRecord]
    ) -> NDArray[np.float32]:
        kept = self._kept and self._kept / f"{digest}.npy"
        if kept and kept.is_file():
            found: NDArray[np.float32] = np.load(kept)
            return found
        outputs: list[NDArray[np.float32]] = []
        progress = make_progress()
        with (
            open_engine(path) as engine,
            ImageReader(self._data) as reader,
            progress.task(f"{path.parent.name}/{path.name}", len(records)) as advance,
        ):
            preprocessing = engine.spec.preprocessing
            for _, image in decode_many(
                reader,
                records,
                workers=2,
                transform=lambda picture: preprocess_image(picture, preprocessing),
                advance=advance,
            ):
                outputs.append(engine.predict(np.asarray(image)[np.newaxis])[0])
        stacked = np.stack(outputs)
        if kept:
            kept.parent.mkdir(parents=True, exist_ok=True)
            np.save(kept, stacked)
        return stacked


def _report_change(recipe: str, target: str, before: EngineRow, after: EngineRow) -> None:
    if not before.metrics:
        return
    for name in ("balanced_accuracy", "macro_auc"):
        old, new = (row.metrics[name].value or 0.0 for row in (before, after))
        if abs(old - new) > 1e-6:
            click.echo(f"{recipe} {target}: {name} {old:.4f} -> {new:.4f}")
    old, new = (row.point.threshold for row in (before, after))
    if abs(old - new) > 1e-6:
        click.echo(f"{recipe} {target}: threshold {old:.4f} -> {new:.4f}")


if __name__ == "__main__":
    main()
