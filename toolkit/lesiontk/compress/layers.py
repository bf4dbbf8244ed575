"""A network's layers as plain records, for the compression techniques."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lesiontk.document import Record
from lesiontk.errors import DataError

PRODUCING = ("Conv2D", "Dense", "SeparableConv2D")
"""Layers that produce output channels."""
ACTIVATIONS = ("Activation", "ReLU", "LeakyReLU", "PReLU", "ELU")
"""Element-wise layers; TensorRT fuses them with the previous operator, TFLite only a ReLU."""
IDENTITY = ("Dropout", "SpatialDropout2D", "GaussianNoise", "GaussianDropout")
"""Layers that are the identity at inference, and not part of an engine."""
CHANNELWISE = (
    "BatchNormalization", *ACTIVATIONS, "Rescaling", *IDENTITY, "MaxPooling2D", "AveragePooling2D",
    "GlobalAveragePooling2D", "GlobalMaxPooling2D", "ZeroPadding2D", "Cropping2D", "UpSampling2D",
    "Resizing",
)  # fmt: skip
"""Layers that process each channel individually and keep the number of channels."""
JOINING = ("Add", "Subtract", "Average", "Maximum", "Minimum", "Multiply")
"""Layers that combine channels of the same index."""
ELEMENTWISE = (
    "linear", "relu", "leaky_relu", "elu", "selu", "gelu", "swish", "mish", "softplus", "softsign",
    "exponential", "tanh", "sigmoid", "hard_sigmoid",
)  # fmt: skip
"""Element-wise activation functions."""
MIXING = ("softmax",)
"""Activation functions over all channels of a position."""
KNOWN = (
    "InputLayer", *PRODUCING, "DepthwiseConv2D", *CHANNELWISE, *JOINING, "Concatenate", "Flatten",
    "Reshape", "Softmax",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer: its class, its input layers, its output shape (without the batch).

    `kernel` is (height, width), `groups` those of a convolution, `multiplier` the outputs of each
    input channel of a depthwise or separable one. `activation` is the layer's own function.
    `unusual` is True for a ReLU with a slope, a threshold, or another bound than 6.
    """

    name: str
    kind: str
    inputs: tuple[str, ...]
    shape: tuple[int, ...]
    kernel: tuple[int, int] = (1, 1)
    groups: int = 1
    multiplier: int = 1
    has_bias: bool = False
    activation: str = "linear"
    unusual: bool = False

    def __post_init__(self) -> None:
        if self.kind not in KNOWN:
            raise DataError(
                f"layer {self.name!r} ({self.kind}) is not supported: its channels cannot be "
                f"derived; known are {', '.join(KNOWN)}."
            )
        known = (*ELEMENTWISE, *MIXING)
        if self.activation not in known:
            raise DataError(
                f"layer {self.name!r} ({self.kind}) has the activation {self.activation}, which "
                f"may mix channels; expected one of {', '.join(known)}."
            )

    @property
    def channels(self) -> int:
        """The length of the last axis."""
        return self.shape[-1]

    @property
    def mixes_channels(self) -> bool:
        """Whether each value depends on all channels, so that none can be removed."""
        return self.kind == "Softmax" or self.activation in MIXING


def find_readers(layers: Sequence[Layer]) -> dict[str, list[Layer]]:
    """Return layer name -> the layers that read it; one without readers is left out."""
    readers: dict[str, list[Layer]] = {}
    for layer in layers:
        for name in layer.inputs:
            readers.setdefault(name, []).append(layer)
    return readers


def find_next(layer: Layer, readers: Mapping[str, Sequence[Layer]]) -> Layer | None:
    """Return the only reader of a layer, `IDENTITY` layers skipped; None if there are none or
    several.

    """
    after = readers.get(layer.name, ())
    while len(after) == 1 and after[0].kind in IDENTITY:
        after = readers.get(after[0].name, ())
    return after[0] if len(after) == 1 else None


def count_macs(layers: Sequence[Layer]) -> dict[str, int]:
    """Return layer name -> multiply-accumulate operations for one image.

    Of convolutions and dense layers; additions, normalizations and activations are not counted.
    """
    known = {layer.name: layer for layer in layers}
    counts = {}
    for layer in layers:
        if layer.kind not in (*PRODUCING, "DepthwiseConv2D"):
            continue
        positions = 1
        for extent in layer.shape[:-1]:
            positions *= extent
        inputs = known[layer.inputs[0]].channels
        area = layer.kernel[0] * layer.kernel[1]
        if layer.kind == "DepthwiseConv2D":
            counts[layer.name] = positions * area * layer.channels
        elif layer.kind == "SeparableConv2D":
            middle = inputs * layer.multiplier
            counts[layer.name] = positions * middle * (area + layer.channels)
        else:
            counts[layer.name] = positions * area * (inputs // layer.groups) * layer.channels
    return counts


def count_weights(layers: Sequence[Layer]) -> dict[str, int]:
    """Return layer name -> parameters of convolutions, dense layers and normalizations."""
    known = {layer.name: layer for layer in layers}
    counts = {}
    for layer in layers:
        area = layer.kernel[0] * layer.kernel[1]
        inputs = known[layer.inputs[0]].channels if layer.inputs else 0
        biases = layer.channels if layer.has_bias else 0
        if layer.kind == "BatchNormalization":
            counts[layer.name] = 4 * layer.channels
        elif layer.kind == "DepthwiseConv2D":
            counts[layer.name] = area * layer.channels + biases
        elif layer.kind == "SeparableConv2D":
            middle = inputs * layer.multiplier
            counts[layer.name] = area * middle + middle * layer.channels + biases
        elif layer.kind in PRODUCING:
            counts[layer.name] = area * (inputs // layer.groups) * layer.channels + biases
    return counts


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerWidths(Record):
    """The channels and MACs of a layer with weights, before a pruning and after it (`kept`)."""

    layer: str
    kind: str
    channels: int
    kept: int
    macs: int
    macs_kept: int
