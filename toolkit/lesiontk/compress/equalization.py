"""Cross-layer equalization: equal weight ranges of the channels of consecutive layers.

Nagel et al. 2019 (arXiv:1906.04721), section 4.1: if all functions between two layers are
positively homogeneous (f(s x) = s f(x) for s > 0, as ReLU), dividing the first layer's output
channel by s and multiplying the second layer's input channel by s leaves the outputs unchanged.
Activation tensors, which have one scale for all channels, then use their range more evenly.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from lesiontk.compress.layers import ACTIVATIONS, Layer, find_readers

Weights = list[NDArray[np.float32]]
SCALED = ("Conv2D", "DepthwiseConv2D", "Dense")
TRANSPARENT = (
    *ACTIVATIONS, "Dropout", "SpatialDropout2D", "MaxPooling2D", "AveragePooling2D",
    "GlobalAveragePooling2D", "GlobalMaxPooling2D", "ZeroPadding2D", "Cropping2D", "UpSampling2D",
)  # fmt: skip
"""Layers allowed within a pair; of activations, the positively homogeneous ones."""
ROUNDS, TOLERANCE = 20, 1e-3


def find_pairs(
    layers: Sequence[Layer], is_homogeneous: Callable[[str], bool]
) -> list[tuple[str, str]]:
    """Return the pairs of layers that can be scaled against each other.

    `is_homogeneous` states whether a layer's activation is positively homogeneous.
    """
    readers = find_readers(layers)
    pairs = []
    for layer in layers:
        if layer.name == "logits" or not _is_scaled(layer) or not is_homogeneous(layer.name):
            continue
        current = layer
        while len(after := readers.get(current.name, [])) == 1:
            current = after[0]
            if _is_scaled(current):
                if current.groups in (1, current.channels):
                    pairs.append((layer.name, current.name))
                break
            if current.kind not in TRANSPARENT:
                break
            if current.kind in ACTIVATIONS and not is_homogeneous(current.name):
                break
    return pairs


def _is_scaled(layer: Layer) -> bool:
    return layer.kind in SCALED and layer.multiplier == 1


def equalize(
    layers: Sequence[Layer], pairs: Sequence[tuple[str, str]], weights: Mapping[str, Weights]
) -> dict[str, Weights]:
    """Return the weights with equalized ranges of all pairs, iterated until convergence.

    `weights` contains the kernel and the bias, if any, of every layer of the pairs.
    """
    kinds = {layer.name: layer.kind for layer in layers}
    found = {name: [values.copy() for values in arrays] for name, arrays in weights.items()}
    for _ in range(ROUNDS):
        largest_change = 0.0
        for first, second in pairs:
            outputs = _outputs_last(found[first][0], kinds[first])
            inputs = _inputs_last(found[second][0], kinds[second])
            scale = choose_scale(_range(outputs), _range(inputs))
            outputs /= scale
            inputs *= scale
            if len(found[first]) > 1:
                found[first][1] /= scale
            largest_change = max(largest_change, float(np.abs(np.log(scale)).max()))
        if largest_change < TOLERANCE:
            break
    return found


def choose_scale(outputs: NDArray[np.float32], inputs: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return s [C] with outputs / s = inputs * s (equation 11); 1 where a range is 0."""
    known = (outputs > 0) & (inputs > 0)
    scale = np.ones_like(outputs)
    np.sqrt(np.divide(outputs, inputs, out=scale, where=known), out=scale, where=known)
    return scale


def _outputs_last(kernel: NDArray[np.float32], kind: str) -> NDArray[np.float32]:
    """Return a view of a kernel [..., out]."""
    return kernel[..., 0] if kind == "DepthwiseConv2D" else kernel


def _inputs_last(kernel: NDArray[np.float32], kind: str) -> NDArray[np.float32]:
    """Return a view of a kernel [..., in]."""
    return kernel[..., 0] if kind == "DepthwiseConv2D" else np.swapaxes(kernel, -1, -2)


def _range(view: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray(np.abs(view).reshape(-1, view.shape[-1]).max(axis=0))
