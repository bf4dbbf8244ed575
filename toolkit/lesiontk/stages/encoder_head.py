"""Stage: a linear classifier on an encoder's features: a teacher like any other engine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx
from pydantic import Field

from lesiontk.backends.onnx.encoder import add_head
from lesiontk.data.dealt_split import DealtSplit
from lesiontk.document import Record
from lesiontk.errors import DataError
from lesiontk.records import (
    MAY_HAVE_SEEN_TEST,
    Artefact,
    EngineSpec,
    Preprocessing,
    ValidationScores,
)
from lesiontk.stage import Context, Stage, StageConfig, StageInfo, StageOutput
from lesiontk.stages.encode import ENCODER, TRAINING, VALIDATION, EncodedImages
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


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderTeacher(Record):
    """An engine of an encoder and a head, which was fitted with the penalty's inverse `strength`.

    `strengths` has the validation scores of each that was tried.
    """

    file: str
    labels: tuple[str, ...]
    task: str
    split_hash: str
    encoder: str
    pretraining: str
    views: int
    preprocessing: Preprocessing
    strength: float
    strengths: tuple[Mapping[str, float], ...]
    validation: ValidationScores
    may_have_seen_test: bool


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
        encoded, dealt = features.read_facts(EncodedImages), split.read_facts(DealtSplit)
        if encoded.split_hash != dealt.split_hash:
            raise DataError(
                f"{features.name} has the features of another split than {split.name}; expected "
                "those of the same."
            )
        task, labels = dealt.task, dealt.task.labels
        targets = {
            subset: np.array(
                [labels.index(r.label) for r in read_split(split) if r.subset == subset]
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
        unknown = not config.has_not_seen_test
        size = features.manifest.config["image_size"]
        spec = EngineSpec(
            labels=labels,
            preprocessing=Preprocessing(size),
            task=task.name,
            backend="onnx",
            precision="float32",
            recipe=f"encoder {encoded.encoder}",
            split_hash=dealt.split_hash,
            licence=dealt.licence,
            extra={
                "pretraining": config.pretraining,
                **({MAY_HAVE_SEEN_TEST: True} if unknown else {}),
            },
        )
        engine = add_head(onnx.load(features.file(ENCODER)), head.weights, head.bias, spec)
        onnx.save(engine, context.directory / FILE)
        best = next(row for row in head.scores if row["strength"] == head.strength)
        metrics = {name: value for name, value in best.items() if name != "strength"}
        teacher = EncoderTeacher(
            file=FILE,
            labels=labels,
            task=task.name,
            split_hash=spec.split_hash,
            encoder=encoded.encoder,
            pretraining=config.pretraining,
            views=encoded.views,
            preprocessing=spec.preprocessing,
            strength=head.strength,
            strengths=tuple(head.scores),
            validation=ValidationScores(len(targets["validation"]), metrics),
            may_have_seen_test=unknown,
        )
        return StageOutput(teacher.to_document())
