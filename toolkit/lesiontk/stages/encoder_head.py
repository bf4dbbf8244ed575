"""Stage: a linear classifier on an encoder's features: a teacher like any other engine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import ClassVar

import numpy as np
import onnx
from pydantic import Field

from lesiontk.backends.onnx.encoder import add_head
from lesiontk.data.tasks import definition_of, task_from_definition
from lesiontk.errors import DataError
from lesiontk.records import Artefact, EngineSpec, Preprocessing, unknown_facts
from lesiontk.stage import Context, Stage, StageConfig, StageInfo, StageOutput
from lesiontk.stages.encode import ENCODER, TRAINING, VALIDATION
from lesiontk.stages.split import read_split
from lesiontk.train.linear_head import fit_linear_head

FILE = "onnx_float32.onnx"


class EncoderHeadConfig(StageConfig):
    """What is known of the images that the encoder was pretrained on."""

    pretraining: str = Field(
        "unknown", min_length=1, description="the images that the encoder was pretrained on"
    )
    has_not_seen_test: bool = Field(
        False, description="the pretraining images are known to contain none of this data set"
    )


class EncoderHeadStage(Stage):
    """Produces an engine: encoder and head in one ONNX file, with the spec of any engine.

    What the encoder may have seen is in the spec, and in the card of each student.
    """

    info: ClassVar[StageInfo] = StageInfo(
        name="encoder_head",
        version=1,
        accepts={"features": "features", "split": "split"},
        produces="encoder",
        config=EncoderHeadConfig,
        tools=("onnx", "scikit-learn", "numpy"),
    )

    def run(
        self, parents: Mapping[str, Artefact], config: EncoderHeadConfig, context: Context
    ) -> StageOutput:
        features, split = parents["features"], parents["split"]
        if features.facts["split_hash"] != split.facts["split_hash"]:
            raise DataError(
                f"{features.name} has the features of another split than {split.name}; expected "
                "those of the same."
            )
        task = task_from_definition(definition_of(split.facts))
        labels = tuple(task.labels)
        targets = {
            subset: np.array(
                [labels.index(r["label"]) for r in read_split(split) if r["subset"] == subset]
            )
            for subset in ("train", "validation")
        }
        with context.progress.task("fitting the head", None) as advance:
            head = fit_linear_head(
                np.load(features.file(TRAINING)),
                targets["train"],
                np.load(features.file(VALIDATION)),
                targets["validation"],
                labels,
                advance,
            )
        unknown = unknown_facts(not config.has_not_seen_test)
        size = features.manifest["config"]["image_size"]
        spec = EngineSpec(
            labels=labels,
            preprocessing=Preprocessing(size),
            task=task.name,
            backend="onnx",
            precision="float32",
            recipe=f"encoder {features.facts['encoder']}",
            split_hash=str(split.facts["split_hash"]),
            licence=str(split.facts["licence"]),
            extra={"pretraining": config.pretraining, **unknown},
        )
        engine = add_head(onnx.load(features.file(ENCODER)), head.weights, head.bias, spec)
        onnx.save(engine, context.directory / FILE)
        best = next(row for row in head.scores if row["strength"] == head.strength)
        return StageOutput(
            {
                "file": FILE,
                "labels": list(labels),
                "task": task.name,
                "split_hash": spec.split_hash,
                "encoder": features.facts["encoder"],
                "pretraining": config.pretraining,
                "views": features.facts["views"],
                "preprocessing": asdict(spec.preprocessing),
                "strengths": list(head.scores),
                "validation": {**best, "n": len(targets["validation"])},
                **unknown,
            }
        )
