"""The content of the report's tables as records; the template only prints them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from lesiontk.backends.engine_facts import EngineFacts
from lesiontk.bench.benchmark import Benchmark
from lesiontk.data.dealt_split import DealtSplit
from lesiontk.document import Record
from lesiontk.evaluate.comparison import ChangedImage as ChangedRow
from lesiontk.evaluate.evaluation import EngineEvaluation
from lesiontk.evaluate.metrics import order_labels
from lesiontk.explain.flips import ORDER as FLIP_ORDER
from lesiontk.explain.flips import find_direction
from lesiontk.report.pareto import EnginePoint, find_pareto_front

MAX_CHANGED = 40


@dataclass(frozen=True, slots=True)
class JudgedImage(Record):
    """A row of the predictions: its image, the resampled group, the lesion if known."""

    image_id: str
    group: str
    lesion_id: str | None


@dataclass(frozen=True, slots=True)
class ChangedImage:
    """An image whose predicted class differs between an engine and its parent."""

    row: int
    image: JudgedImage | None
    true_label: str
    from_label: str
    to_label: str
    right_before: bool
    right_after: bool
    confidence_before: float | None
    confidence_after: float | None
    is_critical_loss: bool


@dataclass(frozen=True, slots=True)
class ChangedTable:
    """The changed images of one engine, those from a positive to another label first.

    `lesions` is None if the images' lesions are unknown; `left_out` rows are not listed.
    """

    engine: str
    parent: str
    judged: int
    images: int
    lesions: int | None
    critical_losses: int
    lost: int
    gained: int
    rows: tuple[ChangedImage, ...]
    left_out: int


@dataclass(frozen=True, slots=True)
class ConfusionRow:
    """Counts of one true label; `shares` are of the row's total, None for a row without images."""

    label: str
    total: int
    counts: tuple[int, ...]
    shares: tuple[float | None, ...]


@dataclass(frozen=True, slots=True)
class ConfusionTable:
    """A confusion matrix, and the engines with exactly this one."""

    engines: tuple[str, ...]
    labels: tuple[str, ...]
    rows: tuple[ConfusionRow, ...]


def label_order(benchmark: Benchmark) -> tuple[str, ...]:
    """Return the labels with the critical one first."""
    critical = benchmark.critical
    rest = [label for label in order_labels(benchmark.labels) if label != critical]
    return (critical, *rest)


def list_points(benchmark: Benchmark) -> tuple[EnginePoint, ...]:
    """Return the engines for the accuracy-latency plot: both are known, so none was emulated."""
    points = []
    for row in benchmark.rows:
        score = row.metrics["balanced_accuracy"]
        if score.value is not None and not row.emulated_by:
            points.append(
                EnginePoint(
                    name=row.key,
                    latency_ms=row.latency.median,
                    score=score.value,
                    low=score.low,
                    high=score.high,
                    size_bytes=row.size_bytes,
                )
            )
    return tuple(points)


def list_front(benchmark: Benchmark) -> tuple[str, ...]:
    """Return the targets on the Pareto front of latency and balanced accuracy, fastest first."""
    points = list_points(benchmark)
    return tuple(points[index].name for index in find_pareto_front(points))


def count_changed_lesions(
    changed: Sequence[ChangedRow], images: Sequence[JudgedImage]
) -> int | None:
    """Return how many lesions have an image among `changed`, None if lesions are not known."""
    return len({images[image.index].group for image in changed}) if images else None


def list_changed(
    benchmark: Benchmark,
    images: Sequence[JudgedImage],
    confidences: Mapping[str, Sequence[float]],
) -> tuple[ChangedTable, ...]:
    """Return a table for every engine of reduced precision, and any other that changed a class."""
    critical = benchmark.critical
    tables = []
    for row in benchmark.rows:
        versus = row.versus_parent
        if versus is None or not (row.is_reduced or versus.changed):
            continue
        changed = [
            _changed_image(entry, row.key, versus.parent_name, critical, images, confidences)
            for entry in versus.changed
        ]
        positive = row.operating_point.positive if row.operating_point else (critical,)
        changed.sort(key=partial(_urgency, critical=critical, positive=positive))
        tables.append(
            ChangedTable(
                engine=row.key,
                parent=versus.parent_name,
                judged=versus.n,
                images=len(changed),
                lesions=count_changed_lesions(versus.changed, images),
                critical_losses=sum(image.is_critical_loss for image in changed),
                lost=sum(image.right_before for image in changed),
                gained=sum(image.right_after for image in changed),
                rows=tuple(changed[:MAX_CHANGED]),
                left_out=max(0, len(changed) - MAX_CHANGED),
            )
        )
    return tuple(tables)


def _changed_image(
    entry: ChangedRow,
    target: str,
    parent: str,
    critical: str,
    images: Sequence[JudgedImage],
    confidences: Mapping[str, Sequence[float]],
) -> ChangedImage:
    row = entry.index

    def confidence(engine: str) -> float | None:
        return confidences[engine][row] if engine in confidences else None

    return ChangedImage(
        row=row,
        image=images[row] if images else None,
        true_label=entry.true_label,
        from_label=entry.from_label,
        to_label=entry.to_label,
        right_before=entry.right_before,
        right_after=entry.right_after,
        confidence_before=confidence(parent),
        confidence_after=confidence(target),
        is_critical_loss=entry.true_label == critical and entry.right_before,
    )


def _urgency(
    image: ChangedImage, critical: str, positive: Sequence[str]
) -> tuple[int, bool, bool, bool, bool, str, int]:
    """Sort key: by direction, as `order_flips`; critical lost, other critical, other lost, wrong
    either way, gained."""
    direction = find_direction(image.from_label, image.to_label, positive)
    return (
        FLIP_ORDER.index(direction),
        not image.is_critical_loss,
        image.true_label != critical,
        not image.right_before,
        image.right_after,
        image.true_label,
        image.row,
    )


def list_confusions(
    benchmark: Benchmark, metrics: Mapping[str, EngineEvaluation]
) -> tuple[ConfusionTable, ...]:
    """Return the confusion matrices of `list_compared`; engines with equal ones share a table."""
    return tabulate_confusions(
        {target: metrics[target].confusion for target in list_compared(benchmark)
         if target in metrics},
        benchmark.labels,
        label_order(benchmark),
    )  # fmt: skip


def tabulate_confusions(
    matrices: Mapping[str, Sequence[Sequence[int]]], labels: Sequence[str], order: tuple[str, ...]
) -> tuple[ConfusionTable, ...]:
    """Return the confusion matrices of engines, of `labels`, with the labels in another order.

    Engines with equal matrices share a table.
    """
    places = [labels.index(label) for label in order]
    engines_by_matrix: dict[tuple[tuple[int, ...], ...], list[str]] = {}
    for engine, confusion in matrices.items():
        matrix = tuple(tuple(confusion[i][j] for j in places) for i in places)
        engines_by_matrix.setdefault(matrix, []).append(engine)
    return tuple(
        ConfusionTable(
            engines=tuple(engines),
            labels=order,
            rows=tuple(map(_confusion_row, order, matrix)),
        )
        for matrix, engines in engines_by_matrix.items()
    )


def _confusion_row(label: str, counts: tuple[int, ...]) -> ConfusionRow:
    total = sum(counts)
    shares = tuple(count / total if total else None for count in counts)
    return ConfusionRow(label, total, counts, shares)


def list_compared(benchmark: Benchmark) -> tuple[str, ...]:
    """Return the engines of reduced precision and their parents, parents first; else all."""
    rows = benchmark.rows
    reduced = [row for row in rows if row.is_reduced]
    if not reduced:
        return tuple(row.key for row in rows)
    parents = {row.versus_parent.parent_name for row in reduced if row.versus_parent}
    chosen = [row for row in rows if row.key in parents]
    return tuple(row.key for row in [*chosen, *(row for row in reduced if row not in chosen)])


def list_checks(engines: Mapping[str, EngineFacts]) -> tuple[str, ...]:
    """Return the name of every verification check of any engine, in order of appearance."""
    names = (check.name for e in engines.values() for check in e.verification.checks)
    return tuple(dict.fromkeys(names))


def describe_labels(
    labels: Sequence[str], evaluation: EngineEvaluation, split: DealtSplit | None
) -> dict[str, str]:
    """Return for each label the number of test images, and of lesions if known."""
    totals = dict(zip(evaluation.labels, map(sum, evaluation.confusion), strict=True))
    lesions = split.lesions.get(evaluation.subset, {}) if split else {}
    return {
        label: f"{totals[label]} images" + (f", {lesions[label]} lesions" if lesions else "")
        for label in labels
    }
