"""The training set: sampled images in batches, and the loss."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lesiontk.data.augment import AUGMENTATIONS
from lesiontk.data.batches import TrainingBatches
from lesiontk.data.images import ImageSet
from lesiontk.errors import DataError
from lesiontk.recipe import TrainSection
from lesiontk.train.distillation import SoftTargets
from lesiontk.train.imbalance import (
    Imbalance,
    choose_imbalance,
    draw_weights,
    make_loss,
    weigh_and_shift,
)


@dataclass(frozen=True, slots=True)
class TrainingSet:
    """The training subset of the images with the recipe's sampling.

    `rows` are its indices, `counts` its images in each class [C], `probabilities` the sampling
    probability of each row [len(rows)], or None for a plain shuffle.
    """

    images: ImageSet
    section: TrainSection
    choices: tuple[Imbalance, ...]
    rows: NDArray[np.int64]
    counts: NDArray[np.int64]
    probabilities: NDArray[np.float64] | None
    soft_targets: SoftTargets | None = None
    _batches: dict[int, TrainingBatches] = field(default_factory=dict, compare=False, repr=False)

    @property
    def steps(self) -> int:
        """Batches per epoch."""
        return len(self.rows) // self.section.batch_size

    def make_loss(self) -> Callable[[Any, Any], Any]:
        """Return the loss of targets and logits, as `lesiontk.train.imbalance.make_loss`."""
        loss = make_loss(self.choices, self.counts)
        if self.soft_targets is None:
            return loss
        return self.soft_targets.make_loss(loss, *weigh_and_shift(self.choices, self.counts))

    def make_output(self, model: Any) -> Any:
        """Return the tensor of a model that the loss takes."""
        features = self.soft_targets.features if self.soft_targets else None
        return features.extend_output(model) if features else model.get_layer("logits").output

    def image_size(self, epoch: int) -> int:
        """Return the image size of an epoch; the recipe may increase it in equal parts."""
        sizes = self.section.list_sizes(self.images.preprocessing.image_size)
        return sizes[epoch * len(sizes) // self.section.epochs]

    def make_batches(self, epoch: int) -> Any:
        """Return the ``tf.data.Dataset`` of one epoch, as `TrainingBatches`."""
        size = self.image_size(epoch)
        if size not in self._batches:
            self._batches[size] = self._batches_of(size)
        return self._batches[size].epoch(epoch)

    def _batches_of(self, size: int) -> TrainingBatches:
        targets = np.eye(len(self.images.labels), dtype=np.float32)[self.images.targets]
        teach = self.soft_targets.teach if self.soft_targets else None
        if self.soft_targets and teach is None:
            features = self.soft_targets.features
            stored = [self.soft_targets.probabilities]
            if features is not None and features.values is not None:
                stored.append(features.values)
            targets = np.hstack([targets, *stored])
        return TrainingBatches(
            self.images,
            self.rows,
            targets,
            self.probabilities,
            batch_size=self.section.batch_size,
            augment=AUGMENTATIONS.get(self.section.augment),
            mixtures=[choice.mix for choice in self.choices if choice.mix],
            teach=teach,
            size=size,
            seed=self.section.seed,
        )


def make_training_set(
    images: ImageSet, section: TrainSection, soft_targets: SoftTargets | None = None
) -> TrainingSet:
    """Return the training set. Raises `DataError` if a class has no training image."""
    rows = images.indices("train")
    counts = np.bincount(images.targets[rows], minlength=len(images.labels))
    if (counts == 0).any():
        missing = [name for name, n in zip(images.labels, counts, strict=True) if n == 0]
        raise DataError(f"the training subset has no image of {', '.join(missing)}.")
    choices = tuple(choose_imbalance(text) for text in section.imbalance)
    factors = draw_weights(choices, counts)
    probabilities = None if factors is None else factors[images.targets[rows]]
    if probabilities is not None:
        probabilities = probabilities / probabilities.sum()
    return TrainingSet(images, section, choices, rows, counts, probabilities, soft_targets)
