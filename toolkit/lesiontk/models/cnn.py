"""The plain CNN of the published study: convolution–BatchNorm–ReLU blocks, pooling, dense head."""

from __future__ import annotations

from typing import Any

from lesiontk.models.architecture import Architecture, Normalization
from lesiontk.system.frameworks import import_keras

WIDTHS = (32, 64, 96, 128, 160, 192)
HEAD = 128


def cnn_body(x: Any) -> Any:
    """Return features [N, F]: six blocks that each halve the size, pooling and a dense layer."""
    layers = import_keras().layers
    for number, width in enumerate(WIDTHS, start=1):
        if number > 1:
            x = layers.MaxPooling2D(name=f"block{number}_pool")(x)
        x = layers.Conv2D(width, 3, padding="same", use_bias=False, name=f"block{number}_conv")(x)
        x = layers.BatchNormalization(momentum=0.95, name=f"block{number}_bn")(x)
        x = layers.ReLU(name=f"block{number}_relu")(x)
    x = layers.GlobalAveragePooling2D(name="pooling")(x)
    return layers.Dense(HEAD, activation="relu", name="dense")(x)


CNN = Architecture(
    name="cnn",
    min_image_size=32,
    normalization=Normalization(1 / 128, (-1.0, -1.0, -1.0)),
    body=cnn_body,
)
