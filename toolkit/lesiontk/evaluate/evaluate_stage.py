"""Stage: an engine's predictions on one side of the split, and what they are worth."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from lesiontk.backends import open_engine
from lesiontk.backends.convert_stage import engine_file
from lesiontk.data.images import open_images, write_rows
from lesiontk.errors import DataError
from lesiontk.evaluate.bootstrap import evaluate_predictions
from lesiontk.recipe import EvaluateRule
from lesiontk.records import Artefact
from lesiontk.stage import Context, Stage, StageInfo, StageOutput

METRICS, PREDICTIONS = "metrics.json", "predictions.csv"
BATCH = 16

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float32]
Predictions = tuple[IntArray, FloatArray, list[str], list[str], list[str]]


class EvaluateConfig(EvaluateRule):
    """Bootstrap settings, and the side that is judged."""

    side: Literal["test", "validation"] = "test"


class EvaluateStage(Stage):
    """Produces ``metrics.json`` and one row of probabilities an image."""

    info: ClassVar[StageInfo] = StageInfo(
        name="evaluate",
        version=1,
        accepts={"engine": "engine", "images": "images"},
        produces="evaluation",
        config=EvaluateConfig,
        tools=("numpy", "ai-edge-litert", "onnxruntime", "tensorflow"),
    )

    def run(
        self, parents: Mapping[str, Artefact], config: EvaluateConfig, context: Context
    ) -> StageOutput:
        images = open_images(parents["images"])
        rows = images.indices(config.side)
        target = parents["engine"].facts["target"]
        with (
            open_engine(engine_file(parents["engine"]), threads=context.threads) as engine,
            context.progress.task(f"evaluating {target}", len(rows)) as advance,
        ):
            if engine.spec.split_hash != images.split_hash:
                raise DataError(
                    f"{target} was trained on the split {engine.spec.split_hash[:12]} and would be "
                    f"evaluated on {images.split_hash[:12]}: its test images may be training "
                    "images. Evaluate it on the split it was trained with."
                )
            parts = []
            for start in range(0, len(rows), BATCH):
                chunk = rows[start : start + BATCH]
                parts.append(engine.predict(images.pixels[chunk]))
                advance(len(chunk))
        probabilities = np.concatenate(parts)
        groups = [images.groups[row] for row in rows]
        evaluation = evaluate_predictions(
            images.targets[rows],
            probabilities,
            images.labels,
            groups,
            resamples=config.resamples,
            confidence=config.confidence,
            seed=config.seed,
        ).to_json()
        document = {"target": target, "side": config.side, "split_hash": images.split_hash,
                    **evaluation}  # fmt: skip
        (context.directory / METRICS).write_text(json.dumps(document, indent=1) + "\n")
        names = [f"p_{label}" for label in images.labels]
        write_rows(
            context.directory / PREDICTIONS,
            [
                {
                    "image_id": images.image_ids[row],
                    "group": images.groups[row],
                    "label": images.labels[images.targets[row]],
                    **{n: f"{p:.7g}" for n, p in zip(names, values, strict=True)},
                }
                for row, values in zip(rows, probabilities, strict=True)
            ],
            ("image_id", "group", "label", *names),
        )
        return StageOutput(
            {
                "target": target,
                "side": config.side,
                "split_hash": images.split_hash,
                "n": evaluation["n"],
                "lesions": evaluation["lesions"],
            }
        )


def read_metrics(artefact: Artefact) -> dict[str, object]:
    """Return the document of an evaluation."""
    document: dict[str, object] = json.loads(artefact.file(METRICS).read_text())
    return document


def read_predictions(artefact: Artefact) -> Predictions:
    """Return targets [N], probabilities [N, C], groups, image ids and labels of an evaluation."""
    with artefact.file(PREDICTIONS).open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    labels = [name.removeprefix("p_") for name in rows[0] if name.startswith("p_")]
    return (
        np.array([labels.index(row["label"]) for row in rows], dtype=np.int64),
        np.array([[float(row[f"p_{n}"]) for n in labels] for row in rows], dtype=np.float32),
        [row["group"] for row in rows],
        [row["image_id"] for row in rows],
        labels,
    )
