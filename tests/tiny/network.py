"""The network that the tests compress and convert: four blocks, 27,000 weights, trained once.

Its weights are in ``weights.npz``; ``make_weights.py`` writes them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from lesiontk.models import ARCHITECTURES
from lesiontk.models.architecture import Architecture, Normalization
from lesiontk.system.frameworks import import_keras

WEIGHTS = Path(__file__).parent / "weights.npz"
NAME = "tiny_cnn"


def body(x: Any) -> Any:
    """Four blocks as those of the plain CNN, then one dense layer."""
    layers = import_keras().layers
    for number, width in enumerate((16, 24, 32, 48), start=1):
        if number > 1:
            x = layers.MaxPooling2D(name=f"block{number}_pool")(x)
        x = layers.Conv2D(width, 3, padding="same", use_bias=False, name=f"block{number}_conv")(x)
        x = layers.BatchNormalization(momentum=0.9, name=f"block{number}_bn")(x)
        x = layers.ReLU(name=f"block{number}_relu")(x)
    x = layers.GlobalAveragePooling2D(name="pooling")(x)
    return layers.Dense(32, activation="relu", name="dense")(x)


def load(model: Any, weights: str) -> None:
    """Fill a built model from a file of `make_weights.py`, but for the head of other classes."""
    with np.load(weights) as arrays:
        trained = [arrays[str(number)] for number in range(len(arrays.files))]
    own = zip(trained, model.get_weights(), strict=True)
    model.set_weights([new if new.shape == old.shape else old for new, old in own])


TINY_CNN = Architecture(
    name=NAME,
    min_image_size=32,
    normalization=Normalization(1 / 128, (-1.0, -1.0, -1.0)),
    body=body,
    load=load,
)


@contextmanager
def registered() -> Iterator[None]:
    """The network is among the architectures while the body runs."""
    ARCHITECTURES.register(NAME, f"{__name__}:TINY_CNN")
    try:
        yield
    finally:
        del ARCHITECTURES._targets[NAME]
