"""A problem that can be solved: three classes, told apart by their colour."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from lesiontk.data.images import ImageSet
from lesiontk.evaluate.metrics import compute_metrics
from lesiontk.models.architecture import Architecture, Normalization, build_model
from lesiontk.progress import NoProgress
from lesiontk.recipe import TrainSection
from lesiontk.records import Preprocessing
from lesiontk.system.frameworks import import_keras
from lesiontk.train.checkpoints import TrainingState
from lesiontk.train.loop import predict_probabilities, train_model

COLOURS = np.array([(200, 90, 80), (90, 180, 80), (80, 90, 200)])

SIZE = 12


def make_images(*, separable: bool = True, count: int = 96) -> ImageSet:
    """Return three classes of coloured noise, told apart by colour unless it is shuffled."""
    generator = np.random.default_rng(0)
    targets = np.arange(count, dtype=np.int64) % 3
    shown = targets if separable else generator.permutation(targets)
    pixels = COLOURS[shown][:, np.newaxis, np.newaxis] + generator.normal(0, 30, (count, 1, 1, 3))
    pixels = pixels + generator.normal(0, 20, (count, SIZE, SIZE, 3))
    ids = tuple(f"image{i}" for i in range(count))
    return ImageSet(
        pixels=np.clip(pixels, 0, 255).astype(np.uint8),
        targets=targets,
        image_ids=ids,
        groups=ids,
        hashes=ids,
        subsets=tuple("train" if i < count * 2 / 3 else "validation" for i in range(count)),
        labels=("bkl", "mel", "nv"),
        task="test",
        critical="mel",
        preprocessing=Preprocessing(SIZE),
        split_hash="0" * 64,
    )


def tiny_body(x: Any) -> Any:
    """One convolution, normalized: all that a resume must bring back."""
    layers = import_keras().layers
    x = layers.Conv2D(8, 3, 2, use_bias=False, name="conv")(x)
    return layers.ReLU(name="relu")(layers.BatchNormalization(momentum=0.8, name="bn")(x))


def build(size: int | None = SIZE) -> Any:
    architecture = Architecture("tiny", SIZE, Normalization(1 / 128, (-1.0,) * 3), tiny_body)
    return build_model(architecture, image_size=size, classes=3, dropout=0.2)


def make_section(**changes: Any) -> TrainSection:
    """Without augmentation, which is traced in every epoch: that takes half of a training."""
    plain: dict[str, Any] = {
        "epochs": 4, "batch_size": 16, "learning_rate": 0.02, "patience": 99, "augment": "none",
    }  # fmt: skip
    return TrainSection(**{**plain, **changes})


def train(
    scratch: Path, images: ImageSet | None = None, progress: Any = None, **changes: Any
) -> tuple[Any, TrainingState]:
    scratch.mkdir(exist_ok=True)
    section = make_section(**changes)
    return train_model(build, images or make_images(), section, scratch, progress or NoProgress())


def score(model: Any, images: ImageSet) -> float:
    """Return the validation balanced accuracy of a model as it is."""
    rows = images.indices("validation")
    probabilities = predict_probabilities(model, images.pixels, rows, 16)
    values = compute_metrics(images.targets[rows], probabilities, images.labels)
    return float(values["balanced_accuracy"][0])


class KilledError(Exception):
    """Stands for a power cut."""


class KillingProgress:
    """Ends the process, so to speak, after so many steps."""

    def __init__(self, steps: int) -> None:
        self.left = steps

    @contextmanager
    def task(self, description: str, total: int | None) -> Iterator[Callable[..., None]]:
        def advance(steps: int, note: str = "") -> None:
            self.left -= steps
            if self.left < 0:
                raise KilledError

        yield advance
