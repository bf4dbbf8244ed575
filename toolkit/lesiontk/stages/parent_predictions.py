"""Stage: what a model says of the training images, for the smaller or rounder ones made of it.

It is asked once, however many are.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
from pydantic import Field

from lesiontk.backends.keras.backend import load_model
from lesiontk.data.images import open_images
from lesiontk.records import MODEL_FILE, Artefact
from lesiontk.stage import Context, Stage, StageConfig, StageInfo, StageOutput
from lesiontk.train.distillation import Lessons, soften
from lesiontk.train.loop import predict_probabilities

LESSONS = "lessons.npy"
"""Probabilities, float32 [N, C]; zero for images outside of training."""


class DistilRule(StageConfig):
    """How much a compressed model listens to the model it comes from."""

    temperature: float = Field(2.0, gt=0)
    weight: float = Field(0.5, gt=0, le=1, description="of the parent's answers beside the truth")


class LessonsConfig(StageConfig):
    """Nothing to choose: how much is listened is the listener's."""


class LessonsStage(Stage):
    """Produces ``lessons.npy``: a model's probabilities of its training images."""

    info: ClassVar[StageInfo] = StageInfo(
        name="lessons",
        version=1,
        accepts={"model": "model", "images": "images"},
        produces="lessons",
        config=LessonsConfig,
        tools=("tensorflow", "tf_keras", "numpy"),
    )

    def run(
        self, parents: Mapping[str, Artefact], config: LessonsConfig, context: Context
    ) -> StageOutput:
        images = open_images(parents["images"])
        rows = images.indices("train")
        model = load_model(parents["model"].file(MODEL_FILE))
        said = np.zeros((len(images.targets), len(images.labels)), np.float32)
        with context.progress.task("asking the parent", None):
            said[rows] = predict_probabilities(model, images.pixels, rows, 32)
        np.save(context.directory / LESSONS, said)
        return StageOutput({"images": len(rows)})


def read_lessons(parents: Mapping[str, Artefact], rule: DistilRule | None) -> Lessons | None:
    """Return the lessons among a stage's parents, or None without a rule."""
    if rule is None:
        return None
    said = np.load(parents["lessons"].file(LESSONS))
    return Lessons(soften(said, rule.temperature), rule.temperature, rule.weight)
