"""Weight scales that prevent saturation of int32 biases. Plain NumPy.

An int8 layer stores its bias as ``bias / (input scale * weight scale)`` in 32 bits. If the weights
of a channel are near zero, as in a channel that training has switched off, the scale of the weights
alone makes that number exceed 32 bits, and the quantizer saturates it: a bias of 0.156 becomes
0.0004. A larger weight scale costs such a channel nothing, because its weights contribute almost
nothing. TensorFlow's own converter raises the scale likewise
(tensorflow/lite/tools/optimize/quantization_utils.cc).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

LARGEST_BIAS = 2**30
"""The largest magnitude of a stored bias: half of int32; the other half is for the products."""
SATURATED_BIAS = 2**31 - 2**8
"""A stored bias of at least this magnitude is saturated: int32's limit, or its float32 rounding."""
LARGEST_WEIGHT = 127


@dataclass(frozen=True, slots=True)
class StoredLayer:
    """The integers of one layer: weights int8 [out, ...], scales [out] or [1], bias integer [out].

    A weight's real value is ``scale * q``, a bias's ``input scale * scale * q``.
    """

    weights: NDArray[np.int8]
    scales: NDArray[np.float32]
    bias: NDArray[np.int64]


def least_scales(bias: NDArray[Any], input_scale: float, count: int) -> NDArray[np.float64]:
    """Return the smallest weight scales [count] that store a real bias [out] in range.

    `count` is the number of scales: one per channel, or 1 for all of them.
    """
    least = np.abs(np.asarray(bias, np.float64)) / (input_scale * LARGEST_BIAS)
    return least if count == len(least) else np.full(count, least.max(initial=0.0))


def find_saturated(bias: NDArray[Any]) -> list[int]:
    """Return the channels whose stored bias is saturated at a limit of int32."""
    return [int(i) for i in np.flatnonzero(np.abs(bias.astype(np.float64)) >= SATURATED_BIAS)]


def choose_scales(
    weights: NDArray[np.int8], scales: NDArray[np.float32], least: NDArray[np.float64]
) -> NDArray[np.float32]:
    """Return the scales, raised to `least` where they are below it.

    If the stored weights of a scale are all zero, any scale represents them, and `least` gives the
    bias its finest steps: ONNX Runtime uses 1, which rounds the bias to whole steps of the input.
    """
    rows = weights.reshape(len(weights) if len(scales) > 1 else 1, -1)
    free = ~rows.any(axis=1) & (least > 0)
    raised = (least * (1 + 2.0**-22)).astype(np.float32)  # float32 may round it down
    return np.where((scales < least) | free, raised, scales).astype(np.float32)


def store_layer(
    weights: NDArray[np.int8],
    scales: NDArray[np.float32],
    chosen: NDArray[np.float32],
    bias: NDArray[Any],
    input_scale: float,
) -> StoredLayer:
    """Return the layer quantized again with the `chosen` scales.

    `weights` [out, ...] and `scales` are as stored, `bias` [out] is real.
    """
    ratio = np.asarray(scales, np.float64) / chosen
    spread = ratio.reshape(-1, *(1,) * (weights.ndim - 1))
    rounded = np.rint(weights.astype(np.float64) * spread)
    steps = input_scale * chosen.astype(np.float64)
    return StoredLayer(
        np.clip(rounded, -LARGEST_WEIGHT - 1, LARGEST_WEIGHT).astype(np.int8),
        chosen,
        np.rint(np.asarray(bias, np.float64) / steps).astype(np.int64),
    )
