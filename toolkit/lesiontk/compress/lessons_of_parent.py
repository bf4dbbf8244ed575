"""What a model says of the training images, for the smaller or rounder one made of it."""

from __future__ import annotations

from typing import Any

import numpy as np
from pydantic import Field

from lesiontk.data.images import ImageSet
from lesiontk.stage import Context, StageConfig
from lesiontk.train.lessons import Lessons, soften
from lesiontk.train.loop import predict_probabilities


class DistilRule(StageConfig):
    """How much a compressed model listens to the model it comes from."""

    temperature: float = Field(2.0, gt=0)
    weight: float = Field(0.5, gt=0, le=1, description="of the parent's answers beside the truth")


def take_lessons(
    parent: Any, images: ImageSet, rule: DistilRule | None, context: Context
) -> Lessons | None:
    """Return what the parent says of the training images, or None without a rule."""
    if rule is None:
        return None
    rows = images.indices("train")
    said = np.zeros((len(images.targets), len(images.labels)), np.float32)
    with context.progress.task("asking the parent", None):
        said[rows] = predict_probabilities(parent, images.pixels, rows, 32)
    return Lessons(soften(said, rule.temperature), rule.temperature, rule.weight)
