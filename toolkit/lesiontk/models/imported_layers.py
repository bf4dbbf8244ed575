"""A user's layers as the same layers of Keras 2: which are understood, and what they keep."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lesiontk.errors import DataError
from lesiontk.frameworks import import_keras

CONVOLUTION = ("strides", "padding", "dilation_rate", "activation", "use_bias", "data_format")
POOLING = ("pool_size", "strides", "padding", "data_format")

KEPT: dict[str, tuple[str, ...]] = {
    "Conv2D": ("filters", "kernel_size", "groups", *CONVOLUTION),
    "DepthwiseConv2D": ("kernel_size", "depth_multiplier", *CONVOLUTION),
    "SeparableConv2D": ("filters", "kernel_size", "depth_multiplier", *CONVOLUTION),
    "Dense": ("units", "activation", "use_bias"),
    "BatchNormalization": ("axis", "momentum", "epsilon", "center", "scale"),
    "Activation": ("activation",),
    "ReLU": ("max_value", "negative_slope", "threshold"),
    "LeakyReLU": ("alpha",),
    "Softmax": ("axis",),
    "Rescaling": ("scale", "offset"),
    "MaxPooling2D": POOLING,
    "AveragePooling2D": POOLING,
    "GlobalAveragePooling2D": ("keepdims", "data_format"),
    "GlobalMaxPooling2D": ("keepdims", "data_format"),
    "ZeroPadding2D": ("padding", "data_format"),
    "Flatten": ("data_format",),
    "Reshape": ("target_shape",),
    "Dropout": ("rate",),
    "SpatialDropout2D": ("rate",),
    "Add": (),
    "Average": (),
    "Maximum": (),
    "Multiply": (),
    "Subtract": (),
    "Concatenate": ("axis",),
}
"""Class -> the arguments that it is made from; weights follow in the order of both Kerases."""

ACTIVATIONS = (
    "linear", "relu", "sigmoid", "tanh", "softmax", "elu", "selu", "gelu", "swish", "silu",
    "softplus", "softsign", "exponential", "mish",
)  # fmt: skip
"""Those that mean the same in both Kerases; hard_sigmoid does not."""

MERGING = ("Add", "Average", "Maximum", "Multiply", "Subtract", "Concatenate")
IDLE = (
    "GaussianNoise", "GaussianDropout", "AlphaDropout", "RandomFlip", "RandomRotation",
    "RandomZoom", "RandomTranslation", "RandomContrast", "RandomBrightness",
    "ActivityRegularization", "Identity",
)  # fmt: skip
"""Layers that do nothing once trained; they are left out."""


@dataclass(frozen=True, slots=True)
class ForeignLayer:
    """A layer of a user's model: class, name, configuration, weights in order."""

    kind: str
    name: str
    config: Mapping[str, Any]
    weights: tuple[NDArray[Any], ...]

    def refuse(self, why: str) -> DataError:
        """Return the error that names the layer."""
        return DataError(f"layer {self.name!r} ({self.kind}) cannot be imported: {why}.")


def describe_layer(layer: Any) -> ForeignLayer:
    """Return the description of a layer of Keras 2 or 3, or of an operation of Keras 3."""
    config = dict(layer.get_config()) if hasattr(layer, "get_config") else {}
    weights = layer.get_weights() if hasattr(layer, "get_weights") else []
    return ForeignLayer(type(layer).__name__, layer.name, config, tuple(weights))


def check_layer(layer: ForeignLayer) -> None:
    """Raise `DataError` with the layer's name for one that is not understood."""
    if layer.kind in (*IDLE, "Normalization"):
        return
    if layer.kind not in KEPT:
        raise layer.refuse(f"known are {', '.join([*KEPT, 'Normalization', *IDLE])}")
    if layer.config.get("data_format", "channels_last") not in ("channels_last", None):
        raise layer.refuse("its channels come first; expected data_format channels_last")
    if "activation" not in KEPT[layer.kind]:
        return
    activation = layer.config.get("activation", "linear")
    if activation not in ACTIVATIONS:
        told = repr(activation) if isinstance(activation, str) else "a layer or code"
        raise layer.refuse(f"its activation is {told}; known are {', '.join(ACTIVATIONS)}")


def rebuild_layer(layer: ForeignLayer, *, name: str) -> tuple[Callable[..., Any], list[Any]] | None:
    """Return the Keras 2 layer and the weights to set once it is called; None for an idle one.

    Raises `DataError` with the layer's name for one that is not understood.
    """
    check_layer(layer)
    if layer.kind in IDLE:
        return None
    if layer.kind == "Normalization":
        return _rebuild_normalization(layer, name), []
    kept = {key: layer.config[key] for key in KEPT[layer.kind] if key in layer.config}
    if layer.kind == "LeakyReLU" and "negative_slope" in layer.config:
        kept["alpha"] = layer.config["negative_slope"]  # Keras 3's name for it
    keras = import_keras()
    try:
        return getattr(keras.layers, layer.kind)(**kept, name=name), list(layer.weights)
    except (TypeError, ValueError) as error:
        raise layer.refuse(str(error)) from error


def _rebuild_normalization(layer: ForeignLayer, name: str) -> Any:
    """Return the Rescaling that an adapted Normalization equals: (x - mean) / sqrt(variance)."""
    known = layer.weights[:2] or [layer.config.get("mean"), layer.config.get("variance")]
    if any(value is None for value in known) or layer.config.get("invert"):
        raise layer.refuse("it is not adapted, or inverts; expected a mean and a variance")
    mean, variance = (np.asarray(value, np.float64).reshape(-1) for value in known)
    deviation = np.maximum(np.sqrt(variance), 1e-7)
    return import_keras().layers.Rescaling(
        (1 / deviation).tolist(), (-mean / deviation).tolist(), name=name
    )
