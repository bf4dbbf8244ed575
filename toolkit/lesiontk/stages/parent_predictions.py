"""Stage: a model's predictions for the training images, the soft targets of its children.

They are computed once for all children.
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
    """Self-distillation: the soft targets of the parent in the training of a compressed model."""

    temperature: float = Field(2.0, gt=0, description="temperature of the softmax")
    weight: float = Field(
        0.5, gt=0, le=1, description="weight of the soft targets against the true labels"
    )


class ParentPredictionsConfig(StageConfig):
    """The stage has no options: temperature and weight are those of the child."""


class ParentPredictionsStage(Stage):
    """Produces ``soft_targets.npy``: a model's probabilities for its training images."""

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
        probabilities = np.zeros((len(images.targets), len(images.labels)), np.float32)
        with context.progress.task("running the parent", None):
            probabilities[rows] = predict_probabilities(model, images.pixels, rows, 32)
        np.save(context.directory / SOFT_TARGETS, probabilities)
        return StageOutput({"images": len(rows)})


def read_soft_targets(
    parents: Mapping[str, Artefact], rule: DistillRule | None
) -> SoftTargets | None:
    """Return the soft targets among a stage's parents, or None without a rule."""
    if rule is None:
        return None
    probabilities = np.load(parents["soft_targets"].file(SOFT_TARGETS))
    return SoftTargets(soften(probabilities, rule.temperature), rule.temperature, rule.weight)
