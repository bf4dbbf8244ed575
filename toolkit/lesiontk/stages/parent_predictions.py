"""Stage: a model's predictions of the training images, soft targets of its children.

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
from lesiontk.train.distillation import SoftTargets, soften
from lesiontk.train.loop import predict_probabilities

SOFT_TARGETS = "soft_targets.npy"
"""Probabilities, float32 [N, C]; zero for images outside of training."""


class DistillRule(StageConfig):
    """How much a compressed model listens to the model it comes from."""

    temperature: float = Field(2.0, gt=0, description="softens probabilities before comparison")
    weight: float = Field(0.5, gt=0, le=1, description="of the parent's answers beside the truth")


class ParentPredictionsConfig(StageConfig):
    """Nothing to choose: how much is listened is the listener's."""


class ParentPredictionsStage(Stage):
    """Produces ``soft_targets.npy``: a model's probabilities of its training images."""

    info: ClassVar[StageInfo] = StageInfo(
        name="parent_predictions",
        version=1,
        accepts={"model": "model", "images": "images"},
        produces="soft_targets",
        config=ParentPredictionsConfig,
        tools=("tensorflow", "tf_keras", "numpy"),
    )

    def run(
        self, parents: Mapping[str, Artefact], config: ParentPredictionsConfig, context: Context
    ) -> StageOutput:
        images = open_images(parents["images"])
        rows = images.indices("train")
        model = load_model(parents["model"].file(MODEL_FILE))
        said = np.zeros((len(images.targets), len(images.labels)), np.float32)
        with context.progress.task("asking the parent", None):
            said[rows] = predict_probabilities(model, images.pixels, rows, 32)
        np.save(context.directory / SOFT_TARGETS, said)
        return StageOutput({"images": len(rows)})


def read_soft_targets(
    parents: Mapping[str, Artefact], rule: DistillRule | None
) -> SoftTargets | None:
    """Return the lessons among a stage's parents, or None without a rule."""
    if rule is None:
        return None
    said = np.load(parents["soft_targets"].file(SOFT_TARGETS))
    return SoftTargets(soften(said, rule.temperature), rule.temperature, rule.weight)
