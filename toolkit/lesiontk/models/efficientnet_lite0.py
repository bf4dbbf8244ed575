"""EfficientNet-Lite0: EfficientNet-B0 (Tan & Le, arXiv:1905.11946) for edge devices.

No squeeze-and-excite, ReLU6 instead of swish, so that every operator quantizes to int8.
"""

from __future__ import annotations

import zipfile
import zlib
from typing import Any

import numpy as np

from lesiontk.errors import DataError
from lesiontk.models.architecture import Architecture, Normalization
from lesiontk.system.frameworks import import_keras

# expansion, output channels, blocks, stride, kernel size
STAGES = (
    (1, 16, 1, 1, 3),
    (6, 24, 2, 2, 3),
    (6, 40, 2, 2, 5),
    (6, 80, 3, 2, 3),
    (6, 112, 3, 1, 5),
    (6, 192, 4, 2, 5),
    (6, 320, 1, 1, 3),
)


def efficientnet_lite0_body(x: Any) -> Any:
    """Return feature maps of stem, sixteen inverted residual blocks and head convolution."""
    layers = import_keras().layers

    def normalize(x: Any, name: str) -> Any:
        return layers.BatchNormalization(epsilon=1e-3, name=name)(x)

    x = layers.Conv2D(32, 3, 2, padding="same", use_bias=False, name="conv_stem")(x)
    x = layers.ReLU(6.0, name="relu0")(normalize(x, "bn0"))
    number = 0
    for expansion, width, repeats, stride, kernel in STAGES:
        for repeat in range(repeats):
            prefix = f"blocks_{number}_"
            shortcut = x
            if expansion > 1:
                channels = x.shape[-1] * expansion
                x = layers.Conv2D(channels, 1, use_bias=False, name=f"{prefix}_expand_conv")(x)
                x = layers.ReLU(6.0, name=f"{prefix}_relu0")(normalize(x, f"{prefix}_bn0"))
            step = stride if repeat == 0 else 1
            x = layers.DepthwiseConv2D(
                kernel, step, padding="same", use_bias=False, name=f"{prefix}_depthwise_conv"
            )(x)
            x = layers.ReLU(6.0, name=f"{prefix}_relu1")(normalize(x, f"{prefix}_bn1"))
            x = layers.Conv2D(width, 1, use_bias=False, name=f"{prefix}_project_conv")(x)
            x = normalize(x, f"{prefix}_bn2")
            if repeat > 0:
                x = layers.Add(name=f"{prefix}_add")([x, shortcut])
            number += 1
    x = layers.Conv2D(1280, 1, use_bias=False, name="conv_head")(x)
    return layers.ReLU(6.0, name="relu1")(normalize(x, "bn1"))


def load_efficientnet_lite0(model: Any, weights: str) -> None:
    """Load an ``.npz`` whose arrays are named ``_layer/variable`` (kernels HWIO).

    Keras refuses names that begin with an underscore, so the layers' names omit it.
    """
    if not zipfile.is_zipfile(weights):
        raise DataError(f"{weights} is not an .npz of arrays (a zip archive).")
    try:
        with np.load(weights) as arrays:
            values = {name: arrays[name].astype(np.float32) for name in arrays.files}
    except (OSError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"{weights} is not an .npz of arrays: {error}") from error
    for layer in model.layers:
        names = [
            f"_{layer.name}/{variable.name.rsplit('/', 1)[-1].split(':')[0]}".replace(
                "depthwise_kernel", "kernel"
            )
            for variable in layer.weights
        ]
        if not names or layer.name == "logits":
            continue
        missing = [name for name in names if name not in values]
        if missing:
            raise DataError(f"{weights} lacks {missing[0]}; it does not match efficientnet_lite0.")
        try:
            layer.set_weights([values[name] for name in names])
        except ValueError as error:
            raise DataError(f"{weights}: layer {layer.name} does not match: {error}") from error


EFFICIENTNET_LITE0 = Architecture(
    name="efficientnet_lite0",
    min_image_size=32,
    normalization=Normalization(1 / 128, (-127 / 128, -127 / 128, -127 / 128)),
    body=efficientnet_lite0_body,
    load=load_efficientnet_lite0,
    wanted_file=(
        "an .npz of the published network (TensorFlow's EfficientNet-Lite, Apache-2.0), arrays "
        "named layer/variable such as _conv_stem/kernel, kernels HWIO"
    ),
)
