"""Stage: an engine's predictions on validation and test, and its results on test.

The threshold and the temperature are chosen on validation from this engine's own outputs, because
quantization shifts them, and then applied to the test images.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from lesiontk.backends import open_engine
from lesiontk.backends.backend import Engine
from lesiontk.backends.engine_facts import EngineFacts
from lesiontk.backends.execution import name_emulator
from lesiontk.backends.reference_outputs import engine_file
from lesiontk.calibration.brightness import band_edges, measure_luma, name_band
from lesiontk.data.images import ImageSet, open_images, write_rows
from lesiontk.data.tasks import task_of_engine
from lesiontk.document import write_record
from lesiontk.errors import DataError
from lesiontk.evaluate.assessment import Assessment
from lesiontk.evaluate.evaluation import EngineEvaluation, evaluate_engine
from lesiontk.evaluate.operating_point import OperatingPoint, freeze_operating_point
from lesiontk.evaluate.subgroups import (
    AGE,
    BRIGHTNESS,
    SEX,
    SITE,
    describe_people,
)
from lesiontk.evaluate.temperature import fit_temperature
from lesiontk.recipe import EvaluateRule
from lesiontk.records import Artefact
from lesiontk.stage import Context, Stage, StageInfo, StageOutput
from lesiontk.stages.engine_tools import tools_of_runtime
from lesiontk.stages.inspect_images import read_inspection
from lesiontk.stages.known_splits import check_own_split

METRICS, PREDICTIONS = "metrics.json", "predictions.csv"
VALIDATION_PREDICTIONS = "predictions_validation.csv"
BATCH = 16

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float32]
Predictions = tuple[IntArray, FloatArray, list[str], list[str], list[str]]


class EvaluateStage(Stage):
    """Produces ``metrics.json`` and, for test and validation, a row of probabilities per image.

    Age, sex and site of the test images are those of the inspection, if it is a parent; their
    brightness is among the quarters of the training images.
    """

    info: ClassVar[StageInfo] = StageInfo(
        name="evaluate",
        version=7,
        accepts={
            "engine": "engine",
            "images": "images",
            "parent": "evaluation",
            "inspection": "inspection",
        },
        produces="evaluation",
        config=EvaluateRule,
        schema_version=EngineEvaluation.SCHEMA,
        tools=("numpy", "scipy"),
    )

    def list_tools(self, config: EvaluateRule, parents: Mapping[str, Artefact]) -> tuple[str, ...]:
        return (*self.info.tools, *tools_of_runtime([parents["engine"]]))

    def run(
        self, parents: Mapping[str, Artefact], config: EvaluateRule, context: Context
    ) -> StageOutput:
        images = open_images(parents["images"])
        validation, test = images.indices("validation"), images.indices("test")
        target = parents["engine"].read_facts(EngineFacts).target
        with open_engine(engine_file(parents["engine"]), threads=context.threads) as engine:
            check_own_split(target, engine.spec.split_hash, images.split_hash)
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
            emulated = name_emulator(engine.describe_execution())
        attributes = list_attributes(images, test, parents.get("inspection"))
        evaluation = replace(
            evaluate_engine(
                target,
                task,
                point,
                images.targets[test],
                on_test,
                [images.groups[row] for row in test],
                config,
                temperature,
                attributes,
            ),
            subset="test",
            split_hash=images.split_hash,
            emulated_by=emulated,
            may_have_seen_test=unknown,
        )
        write_record(context.directory / METRICS, evaluation)
        write_predictions(context.directory / PREDICTIONS, images, test, on_test, attributes)
        write_predictions(
            context.directory / VALIDATION_PREDICTIONS, images, validation, on_validation, {}
        )
        return StageOutput(
            {
                "target": target,
                "subset": "test",
                "split_hash": images.split_hash,
                "n": evaluation.n,
                "lesions": evaluation.lesions,
                "operating_point": point.to_document(),
                "temperature": temperature,
            }
        )


def list_attributes(
    images: ImageSet, rows: IntArray, inspection: Artefact | None
) -> dict[str, list[str]]:
    """Return age band, sex and site with an inspection, and brightness with training images."""
    bands = {}
    if "train" in images.subsets:
        edges = band_edges(measure_luma(images.pixels, images.indices("train")))
        bands = {BRIGHTNESS: [name_band(luma, edges) for luma in measure_luma(images.pixels, rows)]}
    if inspection is None:
        return bands
    known = {row.image_id: row for row in read_inspection(inspection)}
    return {**describe_people(known[images.image_ids[row]] for row in rows), **bands}


def read_evaluation(artefact: Artefact) -> EngineEvaluation:
    """Return an evaluation. Raises `DataError` for one of another version of lesiontk."""
    return artefact.read(METRICS, EngineEvaluation)


def read_operating_point(artefact: Artefact) -> OperatingPoint:
    """Return an evaluation's operating point. Raises `DataError` if an older version has none."""
    document = artefact.facts.get("operating_point")
    if document is None:
        raise DataError(
            f"{artefact.name} has no frozen threshold, because an older lesiontk made it; evaluate "
            "the engine again."
        )
    return OperatingPoint.from_document(document)


def read_assessment(artefact: Artefact) -> Assessment:
    """Return the assessment of an evaluation, for an engine file."""
    return Assessment.from_evaluation(read_evaluation(artefact))


def read_predictions(artefact: Artefact, file: str = PREDICTIONS) -> Predictions:
    """Return targets [N], probabilities [N, C], groups, image ids and labels of an evaluation.

    They are those of the test subset; with `file` `VALIDATION_PREDICTIONS` of the validation
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


def read_attributes(artefact: Artefact) -> dict[str, list[str]]:
    """Return attribute -> its value for each test image of an evaluation."""
    with artefact.file(PREDICTIONS).open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    names = [name for name in (AGE, SEX, SITE, BRIGHTNESS) if rows and name in rows[0]]
    return {name: [row[name] for row in rows] for name in names}


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


def write_predictions(
    path: Path,
    images: ImageSet,
    rows: IntArray,
    probabilities: FloatArray,
    attributes: Mapping[str, Sequence[str]],
) -> None:
    """Write a row per image; nine digits restore the exact float32, which may equal the
    threshold."""
    names = [f"p_{label}" for label in images.labels]
    write_rows(
        path,
        [
            {
                "image_id": images.image_ids[row],
                "group": images.groups[row],
                "label": images.labels[images.targets[row]],
                **{name: values[place] for name, values in attributes.items()},
                **{n: f"{p:.9g}" for n, p in zip(names, outputs, strict=True)},
            }
            for place, (row, outputs) in enumerate(zip(rows, probabilities, strict=True))
        ],
        ("image_id", "group", "label", *attributes, *names),
    )
