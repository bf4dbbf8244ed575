"""Inception-v2, also called BN-Inception (Ioffe & Szegedy, arXiv:1502.03167, figure 5).

The paper's table contradicts itself for 4c and 4d: their branches add up to 608 channels, their
output is given as 576. As in Google's own code (TF-Slim), the output is kept and the pool's
projection has 96 channels instead of 128. The first convolution is an ordinary one, as the table's
64 channels read; the paper's own was separable, to save time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from lesiontk.models.architecture import Architecture, Normalization
from lesiontk.system.frameworks import import_keras

# The statistics average 33 steps: the initial values (0 and 1) decay within an epoch of 220 steps
# (0.97^220 is 0.1 %; Keras' 0.99 would keep a tenth). The plain CNN's 0.95 averages too few steps:
# small images leave the last blocks few positions, and noise accumulates over 69 layers.
MOMENTUM = 0.97


@dataclass(frozen=True, slots=True)
class InceptionBlock:
    """One row of figure 5: the channels of each branch, (reduce, out) where there are two.

    `projection` is the width of the 1x1 convolution after the pool. A block without `conv_1x1`
    and `projection` (both 0) halves the image: its convolutions' last step and its pool have stride
    2, and the pool passes its input's channels through.
    """

    name: str
    conv_1x1: int
    conv_3x3: tuple[int, int]
    double_3x3: tuple[int, int]
    pool: Literal["average", "max"]
    projection: int

    @property
    def stride(self) -> int:
        """Return 1 or 2."""
        return 1 if self.conv_1x1 else 2


BLOCKS = (
    InceptionBlock("3a", 64, (64, 64), (64, 96), "average", 32),
    InceptionBlock("3b", 64, (64, 96), (64, 96), "average", 64),
    InceptionBlock("3c", 0, (128, 160), (64, 96), "max", 0),
    InceptionBlock("4a", 224, (64, 96), (96, 128), "average", 128),
    InceptionBlock("4b", 192, (96, 128), (96, 128), "average", 128),
    InceptionBlock("4c", 160, (128, 160), (128, 160), "average", 96),
    InceptionBlock("4d", 96, (128, 192), (160, 192), "average", 96),
    InceptionBlock("4e", 0, (128, 192), (192, 256), "max", 0),
    InceptionBlock("5a", 352, (192, 320), (160, 224), "average", 128),
    InceptionBlock("5b", 352, (192, 320), (192, 224), "max", 128),
)


def inceptionv2_body(x: Any) -> Any:
    """Return feature maps of stem and ten blocks: 1x1 for 32 px images, 7x7 for 224 px."""
    layers = import_keras().layers
    x = _convolve(x, 64, 7, 2, name="stem_7x7")
    x = layers.MaxPooling2D(3, 2, padding="same", name="stem_pool1")(x)
    x = _convolve(x, 64, 1, name="stem_3x3_reduce")
    x = _convolve(x, 192, 3, name="stem_3x3")
    x = layers.MaxPooling2D(3, 2, padding="same", name="stem_pool2")(x)
    for block in BLOCKS:
        x = _branch_out(x, block)
    return x


def _branch_out(x: Any, block: InceptionBlock) -> Any:
    layers = import_keras().layers
    prefix = f"inception_{block.name}"
    branches = []
    if block.conv_1x1:
        branches.append(_convolve(x, block.conv_1x1, 1, name=f"{prefix}_1x1"))

    reduced, width = block.conv_3x3
    y = _convolve(x, reduced, 1, name=f"{prefix}_3x3_reduce")
    branches.append(_convolve(y, width, 3, block.stride, name=f"{prefix}_3x3"))

    reduced, width = block.double_3x3
    y = _convolve(x, reduced, 1, name=f"{prefix}_double_3x3_reduce")
    y = _convolve(y, width, 3, name=f"{prefix}_double_3x3_1")
    branches.append(_convolve(y, width, 3, block.stride, name=f"{prefix}_double_3x3_2"))

    pooling = layers.AveragePooling2D if block.pool == "average" else layers.MaxPooling2D
    y = pooling(3, block.stride, padding="same", name=f"{prefix}_pool")(x)
    if block.projection:
        y = _convolve(y, block.projection, 1, name=f"{prefix}_pool_projection")
    branches.append(y)
    return layers.Concatenate(name=f"{prefix}_output")(branches)


def _convolve(x: Any, width: int, kernel: int, stride: int = 1, *, name: str) -> Any:
    layers = import_keras().layers
    x = layers.Conv2D(width, kernel, stride, padding="same", use_bias=False, name=f"{name}_conv")(x)
    x = layers.BatchNormalization(momentum=MOMENTUM, name=f"{name}_bn")(x)
    return layers.ReLU(name=f"{name}_relu")(x)


INCEPTIONV2 = Architecture(
    name="inceptionv2",
    min_image_size=32,
    normalization=Normalization(1 / 128, (-1.0, -1.0, -1.0)),
    body=inceptionv2_body,
)
