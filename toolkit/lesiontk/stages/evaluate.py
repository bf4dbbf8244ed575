"""Stage: an engine's predictions on validation and test, and what they are worth on test.

Validation freezes the threshold and the temperature, from this engine's own outputs, for
quantization shifts them; test is judged with them and chooses nothing.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from lesiontk.backends import open_engine
from lesiontk.backends.backend import Engine
from lesiontk.backends.execution import find_fallback
from lesiontk.backends.reference_outputs import engine_file
from lesiontk.data.images import ImageSet, open_images, write_rows
from lesiontk.data.tasks import Task, task_of_engine
from lesiontk.errors import DataError
from lesiontk.evaluate.assessment import Assessment
from lesiontk.evaluate.bootstrap import evaluate_predictions
from lesiontk.evaluate.metrics import order_metrics
from lesiontk.evaluate.operating_point import (
    OperatingPoint,
    evaluate_operating_point,
    freeze_operating_point,
    point_from_document,
)
from lesiontk.evaluate.temperature import evaluate_temperature, fit_temperature
from lesiontk.recipe import EvaluateRule
from lesiontk.records import Artefact, unknown_facts
from lesiontk.stage import Context, Stage, StageInfo, StageOutput
from lesiontk.stages.engine_tools import tools_of_runtime

METRICS, PREDICTIONS = "metrics.json", "predictions.csv"
VALIDATION_PREDICTIONS = "predictions_validation.csv"
BATCH = 16

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float32]
Predictions = tuple[IntArray, FloatArray, list[str], list[str], list[str]]


class EvaluateStage(Stage):
    """Produces ``metrics.json`` and, for test and validation, a row of probabilities an image."""

    info: ClassVar[StageInfo] = StageInfo(
        name="evaluate",
        version=6,
        accepts={"engine": "engine", "images": "images", "parent": "evaluation"},
        produces="evaluation",
        config=EvaluateRule,
        tools=("numpy", "scipy"),
    )

    def list_tools(self, config: EvaluateRule, parents: Mapping[str, Artefact]) -> tuple[str, ...]:
        return (*self.info.tools, *tools_of_runtime([parents["engine"]]))

    def run(
        self, parents: Mapping[str, Artefact], config: EvaluateRule, context: Context
    ) -> StageOutput:
        images = open_images(parents["images"])
        validation, test = images.indices("validation"), images.indices("test")
        target = parents["engine"].facts["target"]
        with open_engine(engine_file(parents["engine"]), threads=context.threads) as engine:
            if engine.spec.split_hash != images.split_hash:
                raise DataError(
                    f"{target} was trained on the split {engine.spec.split_hash[:12]} and would be "
                    f"evaluated on {images.split_hash[:12]}: its test images may be training "
                    "images. Evaluate it on the split it was trained with."
                )
            unknown = engine.spec.may_have_seen_test
            task = task_of_engine(engine.spec)
            on_validation = predict_rows(
                engine, images, validation, f"evaluating {target}: validation", context
            )
            point = freeze_operating_point(
                images.targets[validation],
                on_validation,
                images.labels,
                task.positive,
                config.threshold,
                read_operating_point(parents["parent"]) if "parent" in parents else None,
            )
            temperature = fit_temperature(images.targets[validation], on_validation)
            on_test = predict_rows(engine, images, test, f"evaluating {target}: test", context)
            emulated = emulator_of(engine)
        document = {
            "target": target,
            "subset": "test",
            "split_hash": images.split_hash,
            **emulated,
            **unknown_facts(unknown),
            **document_from_predictions(
                task,
                point,
                images.targets[test],
                on_test,
                [images.groups[row] for row in test],
                config,
                temperature,
            ),
        }
        (context.directory / METRICS).write_text(json.dumps(document, indent=1) + "\n")
        _write_predictions(context.directory / PREDICTIONS, images, test, on_test)
        _write_predictions(
            context.directory / VALIDATION_PREDICTIONS, images, validation, on_validation
        )
        return StageOutput(
            {
                "target": target,
                "subset": "test",
                "split_hash": images.split_hash,
                "n": document["n"],
                "lesions": document["lesions"],
                "operating_point": point.to_json(),
                "temperature": temperature,
            }
        )


def document_from_predictions(
    task: Task,
    point: OperatingPoint,
    y_true: IntArray,
    probabilities: FloatArray,
    groups: list[str],
    rule: EvaluateRule,
    temperature: float | None = None,
) -> dict[str, Any]:
    """Return the metrics of an engine's predictions, at `point` too, as a plain document.

    `y_true` [N] are indices into the task's labels, the columns of `probabilities` [N, C]; `groups`
    are the N lesions. The critical label comes first in each kind of metric. With a `temperature`
    the calibration error that it gives is told beside that of the probabilities as they are.
    """
    statistics: dict[str, Any] = {
        "resamples": rule.resamples,
        "confidence": rule.confidence,
        "seed": rule.seed,
    }
    evaluation = evaluate_predictions(y_true, probabilities, task.labels, groups, **statistics)
    at_point = evaluate_operating_point(
        point, y_true, probabilities, task.labels, groups, **statistics
    )
    scaled = temperature and evaluate_temperature(
        temperature, y_true, probabilities, task.labels, groups, **statistics
    )
    document = evaluation.to_json()
    names = order_metrics(document["metrics"], task.critical)
    return {
        **document,
        "critical": task.critical,
        "metrics": {name: document["metrics"][name] for name in names},
        "operating_point": at_point.to_json(),
        "temperature": scaled.to_json() if scaled else None,
    }


def emulator_of(engine: Engine) -> dict[str, str]:
    """Return ``emulated_by``: what answers in the place of an engine's runtime; else nothing."""
    fallback = find_fallback(engine.describe_execution())
    return {"emulated_by": fallback.used} if fallback else {}


def read_metrics(artefact: Artefact) -> dict[str, Any]:
    """Return the document of an evaluation."""
    document: dict[str, Any] = json.loads(artefact.file(METRICS).read_text())
    return document


def read_operating_point(artefact: Artefact) -> OperatingPoint:
    """Return the operating point that an evaluation froze; `DataError` if it is from before."""
    document = artefact.facts.get("operating_point")
    if document is None:
        raise DataError(
            f"{artefact.name} froze no threshold, for an older lesiontk made it; evaluate the "
            "engine again."
        )
    return point_from_document(document)


def read_assessment(artefact: Artefact) -> Assessment:
    """Return what an evaluation froze and found, as an engine file carries it."""
    read_operating_point(artefact)  # says what to do with one from before they were frozen
    return Assessment.from_evaluation(read_metrics(artefact))


def read_predictions(artefact: Artefact, file: str = PREDICTIONS) -> Predictions:
    """Return targets [N], probabilities [N, C], groups, image ids and labels of an evaluation.

    They are of the test subset; with `file` `VALIDATION_PREDICTIONS` those of the validation
    subset.
    """
    with artefact.file(file).open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    labels = [name.removeprefix("p_") for name in rows[0] if name.startswith("p_")]
    return (
        np.array([labels.index(row["label"]) for row in rows], dtype=np.int64),
        np.array([[float(row[f"p_{n}"]) for n in labels] for row in rows], dtype=np.float32),
        [row["group"] for row in rows],
        [row["image_id"] for row in rows],
        labels,
    )


def predict_rows(
    engine: Engine, images: ImageSet, rows: IntArray, description: str, context: Context
) -> FloatArray:
    """Return an engine's probabilities [len(rows), C], with a progress bar."""
    parts = []
    with context.progress.task(description, len(rows)) as advance:
        for start in range(0, len(rows), BATCH):
            chunk = rows[start : start + BATCH]
            parts.append(engine.predict(images.pixels[chunk]))
            advance(len(chunk))
    return np.concatenate(parts)


def _write_predictions(
    path: Path, images: ImageSet, rows: IntArray, probabilities: FloatArray
) -> None:
    """Write a row an image; nine digits give back the very float32, which a threshold may equal."""
    names = [f"p_{label}" for label in images.labels]
    write_rows(
        path,
        [
            {
                "image_id": images.image_ids[row],
                "group": images.groups[row],
                "label": images.labels[images.targets[row]],
                **{n: f"{p:.9g}" for n, p in zip(names, values, strict=True)},
            }
            for row, values in zip(rows, probabilities, strict=True)
        ],
        ("image_id", "group", "label", *names),
    )
