"""Supported layers of a user's model and their equivalents in Keras 2."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lesiontk.errors import DataError
from lesiontk.models.allow_list import ADVICE
from lesiontk.models.imported_affine import Affine, for_one_image
from lesiontk.models.imported_functions import ACTIVATIONS, DIRECT, Maker, apply_function

CONVOLUTION = ("strides", "padding", "dilation_rate", "activation", "use_bias", "data_format")
POOLING = ("pool_size", "strides", "padding", "data_format")

KEPT: dict[str, tuple[str, ...]] = {
    "Conv2D": ("filters", "kernel_size", "groups", *CONVOLUTION),
    "DepthwiseConv2D": ("kernel_size", "depth_multiplier", *CONVOLUTION),
    "SeparableConv2D": ("filters", "kernel_size", "depth_multiplier", *CONVOLUTION),
    "Conv2DTranspose": ("filters", "kernel_size", "output_padding", *CONVOLUTION),
    "Dense": ("units", "activation", "use_bias"),
    "BatchNormalization": ("axis", "momentum", "epsilon", "center", "scale"),
    "LayerNormalization": ("axis", "epsilon", "center", "scale"),
    "Activation": ("activation",),
    "ReLU": ("max_value", "negative_slope", "threshold"),
    "LeakyReLU": ("alpha",),
    "PReLU": ("shared_axes",),
    "ELU": ("alpha",),
    "Softmax": ("axis",),
    "Rescaling": ("scale", "offset"),
    "Normalization": ("axis", "mean", "variance", "invert"),
    "Resizing": ("height", "width", "interpolation"),
    "MaxPooling2D": POOLING,
    "AveragePooling2D": POOLING,
    "GlobalAveragePooling2D": ("keepdims", "data_format"),
    "GlobalMaxPooling2D": ("keepdims", "data_format"),
    "ZeroPadding2D": ("padding", "data_format"),
    "Cropping2D": ("cropping", "data_format"),
    "UpSampling2D": ("size", "interpolation", "data_format"),
    "Flatten": ("data_format",),
    "Reshape": ("target_shape",),
    "Permute": ("dims",),
    "Dropout": ("rate",),
    "SpatialDropout2D": ("rate",),
    "Add": (),
    "Average": (),
    "Maximum": (),
    "Minimum": (),
    "Multiply": (),
    "Subtract": (),
    "Concatenate": ("axis",),
}
"""Class -> its arguments; the order of weights is the same in Keras 2 and 3."""

MERGING = ("Add", "Average", "Maximum", "Minimum", "Multiply", "Subtract", "Concatenate")
IDENTITY = (
    "GaussianNoise", "GaussianDropout", "AlphaDropout", "RandomFlip", "RandomRotation",
    "RandomZoom", "RandomTranslation", "RandomContrast", "RandomBrightness",
    "ActivityRegularization", "Identity",
)  # fmt: skip
"""Layers without effect at inference; they are dropped."""
COMMUTING = ("ZeroPadding2D", "Cropping2D", "UpSampling2D")
"""Layers that treat channels alike and keep zeros, so that channels can be reordered after."""
FUSED = ("ReLU", "LeakyReLU", "ELU", "Softmax")
"""Layers that may be the activation of another layer."""


@dataclass(frozen=True, slots=True)
class ForeignLayer:
    """A layer of a user's model: class, name, config, weights in order.

    `keras` is its version of Keras, 2 or 3.
    """

    kind: str
    name: str
    config: Mapping[str, Any]
    weights: tuple[NDArray[Any], ...]
    keras: int = 3

    def refuse(self, why: str) -> DataError:
        """Return the error that names the layer."""
        return DataError(f"layer {self.name!r} ({self.kind}) cannot be imported: {why}.")


Apply = Callable[[Any], Any]
"""Maps a Keras tensor, or a list of them, to the layer's output."""


def describe_layer(layer: Any) -> ForeignLayer:
    """Return the description of a layer of Keras 2 or 3."""
    keras = 2 if type(layer).__module__.startswith("tf_keras") else 3
    config, weights = dict(layer.get_config()), tuple(layer.get_weights())
    return ForeignLayer(type(layer).__name__, layer.name, config, weights, keras)


def check_layer(layer: ForeignLayer) -> None:
    """Raise `DataError` with the layer's name for an unsupported one."""
    if layer.kind in IDENTITY:
        return
    if layer.kind in ADVICE:
        raise layer.refuse(ADVICE[layer.kind])
    if layer.kind not in KEPT:
        known = [*KEPT, *IDENTITY]
        nearest = get_close_matches(layer.kind, known, 1)
        also = f"; the nearest is {nearest[0]}" if nearest else ""
        raise layer.refuse(f"known are {', '.join(known)}{also}")
    if layer.config.get("data_format", "channels_last") not in ("channels_last", None):
        raise layer.refuse("its data_format is channels_first; expected channels_last")
    if "activation" in KEPT[layer.kind]:
        _check_activation(layer)


def _check_activation(layer: ForeignLayer) -> None:
    activation = layer.config.get("activation", "linear")
    within = activation_layer(layer)
    if within is not None:
        check_layer(within)
    elif activation is not None and not _is_named(activation, ACTIVATIONS):
        received = repr(activation) if isinstance(activation, str) else "a layer or code"
        raise layer.refuse(
            f"its activation is {received}; known are {', '.join((*ACTIVATIONS, *FUSED))}"
        )


def _is_named(activation: Any, names: Container[str]) -> bool:
    return isinstance(activation, str) and activation in names


def activation_layer(layer: ForeignLayer) -> ForeignLayer | None:
    """Return the layer that is another's activation, as in ``Conv2D(activation=LeakyReLU())``."""
    activation = layer.config.get("activation")
    if not isinstance(activation, Mapping) or activation.get("class_name") not in FUSED:
        return None
    kind, config = str(activation["class_name"]), activation.get("config", {})
    return ForeignLayer(kind, f"{layer.name}_{kind.lower()}", config, (), layer.keras)


def rebuild_layer(layer: ForeignLayer, make: Maker) -> Apply | None:
    """Return the equivalent of the layer, built by `make`; None for a layer without effect.

    Raises `DataError` with the layer's name for an unsupported one.
    """
    check_layer(layer)
    if layer.kind in IDENTITY:
        return None
    activation = layer.config.get("activation", "linear") or "linear"
    if "activation" not in KEPT[layer.kind] or _is_named(activation, DIRECT):
        return _rebuild_plain(layer, make)
    if layer.kind == "Activation":
        return _rebuild_activation(layer, make)
    linear = replace(layer, config={**layer.config, "activation": "linear"})
    first, second = _rebuild_plain(linear, make), _rebuild_activation(layer, make)
    return lambda x: second(first(x))


def _rebuild_activation(layer: ForeignLayer, make: Maker) -> Apply:
    within = activation_layer(layer)
    if within is not None:
        return _rebuild_plain(within, make)
    function = str(layer.config["activation"])
    name = layer.name if layer.kind == "Activation" else f"{layer.name}_{function}"
    return lambda x: apply_function(make, function, name, make.real(x), layer.keras)


def _rebuild_plain(layer: ForeignLayer, make: Maker) -> Apply:
    return REBUILT.get(layer.kind, _rebuild_same)(layer, make)


def _rebuild_same(layer: ForeignLayer, make: Maker) -> Apply:
    """Return the same layer of Keras 2."""
    rebuilt = make_same(layer, make)
    if layer.kind in MERGING:
        return lambda values: rebuilt([make.real(value) for value in values])
    if layer.kind in COMMUTING:
        return lambda value: _pass_channels(value, rebuilt, make)
    return lambda value: rebuilt(make.real(value))


def make_same(
    layer: ForeignLayer, make: Maker, weights: Sequence[Any] | None = None, **others: Any
) -> Any:
    """Return the same layer of Keras 2, with the given weights or arguments replaced."""
    kept = {key: layer.config[key] for key in KEPT[layer.kind] if key in layer.config}
    if "activation" in kept:
        kept["activation"] = DIRECT[kept["activation"] or "linear"]
    given = layer.weights if weights is None else weights
    try:
        return make.layer(layer.kind, layer.name, given, **{**kept, **others})
    except (TypeError, ValueError) as error:
        raise layer.refuse(str(error)) from error


def _pass_channels(value: Any, rebuilt: Any, make: Maker) -> Any:
    """Apply a layer that treats channels alike before they are reordered."""
    parts = value.split() if isinstance(value, Affine) else None
    if parts is None:
        return rebuilt(make.real(value))
    first, second = parts
    return replace(second, tensor=rebuilt(make.real(first)))


def _rebuild_convolution(layer: ForeignLayer, make: Maker) -> Apply:
    """Return a convolution with the order and scale of its input channels folded in."""
    made: dict[tuple[Any, ...], Any] = {}

    def apply(value: Any) -> Any:
        parts = value.split() if isinstance(value, Affine) else None
        foldable = parts is not None and layer.config.get("groups", 1) == 1
        if parts is None or not foldable:
            if () not in made:
                made[()] = make_same(layer, make)
            return made[()](make.real(value))
        first, second = parts
        key = (second.order, second.scale.tobytes())
        if key not in made:
            kernel, *bias = layer.weights
            made[key] = make_same(layer, make, [second.into_kernel(kernel), *bias])
        return made[key](make.real(first))

    return apply


def _rebuild_separable(layer: ForeignLayer, make: Maker) -> Apply:
    """Return a depthwise and a pointwise convolution, so that the tensor between is quantizable."""
    depthwise, pointwise, *bias = layer.weights
    config = layer.config
    first = ForeignLayer(
        "DepthwiseConv2D",
        f"{layer.name}_depthwise",
        {**config, "use_bias": False, "activation": "linear"},
        (depthwise,),
    )
    second = make.layer(
        "Conv2D", layer.name, [pointwise, *bias], filters=config["filters"], kernel_size=1,
        use_bias=bool(bias), activation=DIRECT[config["activation"] or "linear"],
    )  # fmt: skip
    spread = make_same(first, make)
    return lambda value: second(spread(make.real(value)))


def _rebuild_dense(layer: ForeignLayer, make: Maker) -> Apply:
    """Return a dense layer, or a 1 x 1 convolution where it applies to each position."""
    made: dict[bool, Any] = {}

    def apply(value: Any) -> Any:
        x = make.real(value)
        everywhere = len(x.shape) == 4
        if everywhere not in made:
            kernel, *bias = layer.weights
            made[everywhere] = (
                make.layer(
                    "Conv2D", layer.name, [kernel[np.newaxis, np.newaxis], *bias],
                    filters=layer.config["units"], kernel_size=1, use_bias=bool(bias),
                    activation=DIRECT[layer.config["activation"] or "linear"],
                )
                if everywhere
                else make_same(layer, make)
            )  # fmt: skip
        return made[everywhere](x)

    return apply


def _rebuild_layer_normalization(layer: ForeignLayer, make: Maker) -> Apply:
    axis = np.ravel(layer.config.get("axis", -1)).tolist()
    if len(axis) != 1 or layer.config.get("rms_scaling"):
        raise layer.refuse(f"it normalizes the axes {axis}; expected only the last, by its mean")
    rebuilt = make_same(layer, make, axis=axis[0])
    return lambda value: rebuilt(make.real(value))


def _rebuild_leaky_relu(layer: ForeignLayer, make: Maker) -> Apply:
    slope = layer.config.get("negative_slope", layer.config.get("alpha", 0.3))
    rebuilt = make_same(layer, make, alpha=_number(slope))
    return lambda value: rebuilt(make.real(value))


def _rebuild_resizing(layer: ForeignLayer, make: Maker) -> Apply:
    """Return the identity where images have the size: back ends cannot quantize a first Resize."""
    size = layer.config.get("height"), layer.config.get("width")

    def apply(value: Any) -> Any:
        tensor = value.tensor if isinstance(value, Affine) else value
        if tuple(tensor.shape[1:3]) == size:
            return value
        return _rebuild_scaling(layer, make)(value)

    return apply


def _rebuild_scaling(layer: ForeignLayer, make: Maker) -> Apply:
    if layer.config.get("crop_to_aspect_ratio") or layer.config.get("pad_to_aspect_ratio"):
        raise layer.refuse("it also crops or pads; expected the whole image to be scaled")
    if layer.config.get("interpolation", "bilinear") not in ("bilinear", "nearest"):
        raise layer.refuse("expected the interpolation bilinear or nearest")
    if layer.config.get("antialias"):
        raise layer.refuse("it smooths before scaling; expected antialias=False")
    return _rebuild_same(layer, make)


def _rebuild_rescaling(layer: ForeignLayer, make: Maker) -> Apply:
    factors = [_number(layer.config.get(key, start)) for key, start in SCALING.items()]
    return lambda value: multiply_add(layer, value, *factors)


def _rebuild_normalization(layer: ForeignLayer, make: Maker) -> Apply:
    """Return an adapted Normalization, (x - mean) / sqrt(variance), or its inverse."""
    known = layer.weights[:2] or [layer.config.get("mean"), layer.config.get("variance")]
    if any(value is None for value in known):
        raise layer.refuse("it is not adapted; expected a mean and a variance")
    mean, variance = (np.asarray(value, np.float64) for value in known)
    deviation = np.maximum(np.sqrt(variance), 1e-7)

    def apply(value: Any) -> Any:
        shape = _shape(value)
        axes = layer.config.get("axis", -1)
        axes = () if axes is None else sorted(axis % len(shape) for axis in np.ravel(axes).tolist())
        broad = [extent if axis in axes else 1 for axis, extent in enumerate(shape)]
        if 0 in axes:
            raise layer.refuse("it has a mean for each image of a batch; expected other axes")
        m, d = (np.reshape(np.broadcast_to(v, _fit(v, broad)), broad) for v in (mean, deviation))
        if layer.config.get("invert"):
            return multiply_add(layer, value, d, m)
        return multiply_add(layer, value, 1 / d, -m / d)

    return apply


def _fit(values: NDArray[Any], broad: list[int]) -> tuple[int, ...]:
    """Return the shape to broadcast values to `broad`; one number fits all."""
    return values.shape if values.size == np.prod(broad) else tuple(broad)


def multiply_add(layer: ForeignLayer, value: Any, scale: Any, offset: Any) -> Affine:
    """Return ``value * scale + offset``, of constants that broadcast against it."""
    affine = value if isinstance(value, Affine) else Affine.of(value, layer.name)
    shape = _shape(value)
    factors = [for_one_image(constant, len(shape)) for constant in (scale, offset)]
    for constant, factor in zip((scale, offset), factors, strict=True):
        if factor is None or np.broadcast_shapes(factor.shape, shape[1:]) != shape[1:]:
            raise layer.refuse(
                f"it combines {list(shape)} with a constant {list(np.shape(constant))}; expected "
                "one that broadcasts over the tensor's last axes"
            )
    return affine.then(factors[0], factors[1])  # type: ignore[arg-type]  # None raises above


def _shape(value: Any) -> tuple[int, ...]:
    """Return the shape [1, ...] of a value."""
    if isinstance(value, Affine):
        return (1, *value.tensor.shape[1:-1], value.channels)
    return (1, *value.shape[1:])


def _number(value: Any) -> Any:
    """Return a number that Keras 3 may have written as a typed array."""
    if isinstance(value, Mapping) and "config" in value:
        value = value["config"].get("value")
    return np.asarray(value, np.float64) if np.ndim(value) else float(value)


SCALING = {"scale": 1.0, "offset": 0.0}
REBUILT: dict[str, Callable[[ForeignLayer, Maker], Apply]] = {
    "Conv2D": _rebuild_convolution,
    "SeparableConv2D": _rebuild_separable,
    "Dense": _rebuild_dense,
    "LayerNormalization": _rebuild_layer_normalization,
    "LeakyReLU": _rebuild_leaky_relu,
    "Resizing": _rebuild_resizing,
    "Rescaling": _rebuild_rescaling,
    "Normalization": _rebuild_normalization,
}
"""Class -> function that rebuilds it, where the result is not the same layer."""
