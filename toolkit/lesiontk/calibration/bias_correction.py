"""Bias correction: the mean shift that weight rounding causes in each channel. Plain NumPy.

Rounding changes each weight by a fixed error. If the mean of the layer's inputs is not zero (as
after a ReLU), the channel's output shifts by ``error * mean`` on average. In a depthwise network,
with few weights per channel, this is most of int8's loss. Subtracting the shift from the bias
removes it at no cost (Nagel et al., Data-Free Quantization Through Weight Equalization and Bias
Correction, arXiv:1906.04721, section 4.2; here with the inputs' means over calibration images, its
appendix D).

Weights are [groups, outputs of a group, inputs of a group, height, width] throughout: an ordinary
convolution has one group, a depthwise one as many as channels, a dense layer a 1x1 kernel.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lesiontk.errors import DataError

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Window:
    """The geometry of a convolution; `padding` is (top, bottom, left, right), in pixels."""

    kernel: tuple[int, int] = (1, 1)
    strides: tuple[int, int] = (1, 1)
    dilations: tuple[int, int] = (1, 1)
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)


def pad_same(size: int, kernel: int, stride: int, dilation: int = 1) -> tuple[int, int]:
    """Return the padding before and after one axis for ``ceil(size / stride)`` outputs.

    The odd pixel comes after, as in TensorFlow's ``SAME``.
    """
    needed = max((-(-size // stride) - 1) * stride + dilation * (kernel - 1) + 1 - size, 0)
    return needed // 2, needed - needed // 2


def mean_window(values: NDArray[Any], window: Window) -> Floats:
    """Return the mean input of each kernel position, [C, height, width].

    `values` is [N, H, W, C]; padding counts as zeros.
    """
    top, bottom, left, right = window.padding
    padded = np.pad(values, ((0, 0), (top, bottom), (left, right), (0, 0)))
    steps: list[list[slice]] = []
    for axis in (0, 1):
        size, dilation = padded.shape[1 + axis], window.dilations[axis]
        reach = dilation * (window.kernel[axis] - 1)
        starts = (position * dilation for position in range(window.kernel[axis]))
        steps.append([slice(s, s + size - reach, window.strides[axis]) for s in starts])
    means = np.empty((values.shape[3], *window.kernel))
    for column, across in enumerate(steps[1]):
        lines = padded[:, :, across].mean(axis=2).astype(np.float64)  # [N, H, C]
        for row, down in enumerate(steps[0]):
            means[:, row, column] = lines[:, down].mean(axis=(0, 1))
    return means


def average_inputs(
    images: Iterable[NDArray[np.uint8]], measure: Callable[[NDArray[np.uint8]], list[Floats]]
) -> list[Floats]:
    """Return the mean over images, uint8 [1, S, S, 3], of what `measure` returns for each layer's
    input.

    Raises `DataError` if there is no image.
    """
    sums: list[Floats] = []
    count = 0
    for image in images:
        measured = measure(image)
        sums = [a + b for a, b in zip(sums, measured, strict=True)] if sums else measured
        count += 1
    if count == 0:
        raise DataError("bias correction needs calibration images; got none.")
    return [total / count for total in sums]


def round_weights(weights: NDArray[Any], limit: int) -> Floats:
    """Return the weights [groups, out, in, height, width] rounded to int8, as real values.

    Symmetric, one scale per channel: the largest magnitude maps to `limit` (127, or 64 in reduced
    range).
    """
    wide = np.asarray(weights, np.float64)
    largest = np.abs(wide).max(axis=(2, 3, 4), keepdims=True)
    scale = np.maximum(largest / limit, np.finfo(np.float64).tiny)
    return np.asarray(np.clip(np.rint(wide / scale), -limit, limit) * scale, np.float64)


def mean_shift(weights: NDArray[Any], means: Floats, limit: int) -> Floats:
    """Return the shift of each output's mean by rounding, [groups * outputs of a group].

    `weights` [groups, out, in, height, width] are in float; `means` [C, height, width] is the
    result of `mean_window` for inputs of C = groups * in channels. Subtract the shift from the
    bias.
    """
    groups, outputs, inputs, *kernel = weights.shape
    error = round_weights(weights, limit) - weights
    measured = means.reshape(groups, inputs, *kernel)
    return np.asarray(np.einsum("goihw,gihw->go", error, measured), np.float64).reshape(
        groups * outputs
    )
