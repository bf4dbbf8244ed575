"""Fake quantization through tensorflow-model-optimization: a model that trains as int8 computes.

Weights are rounded per channel, symmetrically, to the whole numbers -127 to 127; activations per
tensor to 256 steps between ends that follow the values, where the engine rounds them and nowhere
else. Two schemes: ``tflite`` (any zero point, every tensor) and ``tensorrt`` (zero point 0, the
inputs of weighted layers and average pools, normalized pixels among them, and of an addition the
skip alone, as NVIDIA advises). After training the fake quantization is taken off again: what is
left is a float model whose weights and ranges any back end quantizes as it does others.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from lesiontk.compress.hard_swish import find_hard_swish
from lesiontk.compress.keras_layers import make_kernel_constraint
from lesiontk.compress.kernel_constraint import KernelStructure
from lesiontk.compress.layers import ACTIVATIONS, JOINING, Layer, find_next, find_readers
from lesiontk.errors import DataError
from lesiontk.system.frameworks import (
    import_keras,
    import_model_optimization,
    import_tensorflow,
)

Scheme = Literal["tflite", "tensorrt"]
Ranges = dict[str, tuple[float, float]]

WEIGHTS = {"Conv2D": "kernel", "DepthwiseConv2D": "depthwise_kernel", "Dense": "kernel"}
"""Layer -> its attribute that is rounded."""
COMPUTING = (
    *WEIGHTS, *JOINING, *ACTIVATIONS, "Concatenate", "AveragePooling2D", "GlobalAveragePooling2D",
)  # fmt: skip
"""Layers that give new values; the others move or select, and keep the scale of what they read."""
AVERAGED = ("AveragePooling2D", "GlobalAveragePooling2D")
WITH_RELU = (*WEIGHTS, "Add", "Subtract", "Multiply", "Average", "AveragePooling2D", "Rescaling")
"""Layers that TFLite computes in one operator with a ReLU or ReLU6 behind them."""
BORDER = ("image", "probabilities")
BORDER_KINDS = ("InputLayer", "Rescaling", "Softmax")
NORMALIZATION = "normalisation"
"""The layer that bytes go through first; TFLite folds it into the scale of its input."""


REFUSED = {
    "SeparableConv2D": "has two kernels in one; expected a DepthwiseConv2D and a Conv2D, whose "
    "middle can be rounded: import the model anew, or",
    "LayerNormalization": "is several operators in an int8 engine, whose rounding is not learned",
}
"""Layers that have no place in the schemes -> why."""


@dataclass(frozen=True, slots=True)
class Rounding:
    """What is rounded of one layer: the named weight, its output.

    `pixels` says that its output is rounded, too, between ends that are known: those of all bytes.
    """

    weight: str | None
    output: bool
    pixels: bool = False


def plan_rounding(layers: Sequence[Layer], scheme: Scheme) -> dict[str, Rounding]:
    """Return layer -> what is rounded of it; layers that round nothing are left out.

    Raises `DataError` for a layer that has weights and no place in the scheme.
    """
    readers = find_readers(layers)
    weighted = {
        layer.name: place
        for place, layer in enumerate(layers)
        if layer.kind in WEIGHTS and layer.activation == "linear"
    }
    within = find_hard_swish(layers)
    images = {layer.name for layer in layers if layer.kind == "InputLayer"}
    computing = {layer.name for layer in layers if _is_computing(layer, images)} - within
    plan = {}
    for layer in layers:
        if layer.kind in REFUSED:
            raise DataError(
                f"layer {layer.name!r} ({layer.kind}) {REFUSED[layer.kind]}; quantize without qat."
            )
        if layer.name in BORDER:
            continue
        weight = WEIGHTS.get(layer.kind)
        after = find_next(layer, readers)
        output = layer.name in computing and not (
            after and (after.kind == "Concatenate" or _is_joined(layer, after, scheme))
        )  # of a concatenation, the whole is rounded
        if scheme == "tensorrt":
            output = output and _is_quantized(layer.name, readers, weighted)
        pixels = scheme == "tensorrt" and layer.name == NORMALIZATION
        if weight or output or pixels:
            plan[layer.name] = Rounding(weight, output, pixels)
    return plan


def _is_computing(layer: Layer, images: set[str]) -> bool:
    """Return whether a layer computes new values; a Rescaling is part of the input's scale."""
    inner = layer.kind == "Rescaling" and not images.intersection(layer.inputs)
    return layer.kind in COMPUTING or inner


def _is_joined(layer: Layer, activation: Layer, scheme: Scheme) -> bool:
    """Return whether nothing is rounded between a layer and its reader, an activation."""
    if activation.kind not in ACTIVATIONS or layer.kind in ACTIVATIONS:
        return False
    if scheme == "tensorrt" or (activation.kind, activation.activation) == ("Activation", "linear"):
        return True
    relu = activation.kind == "ReLU" and not activation.unusual
    return (relu or activation.activation == "relu") and layer.kind in WITH_RELU


def _is_quantized(
    name: str, readers: Mapping[str, list[Layer]], weighted: Mapping[str, int]
) -> bool:
    """Return whether any layer rounds what it reads of `name`, in the scheme of TensorRT.

    Of two layers with weights that are added, the addition becomes part of the later one; places
    are those of `weighted`. What moves values on is passed.
    """
    for layer in readers.get(name, []):
        if layer.kind in (*WEIGHTS, *AVERAGED):
            return True
        if layer.kind == "Add":
            fused = max(set(layer.inputs) & set(weighted), key=weighted.__getitem__, default=name)
            if name != fused:
                return True
        moves = layer.kind not in (*COMPUTING, *BORDER_KINDS)
        if moves and _is_quantized(layer.name, readers, weighted):
            return True
    return False


def quantize_aware(
    model: Any,
    layers: Sequence[Layer],
    ranges: Ranges,
    scheme: Scheme,
    structures: Mapping[str, KernelStructure] | None = None,
) -> Any:
    """Return the model with fake quantization; it shares no weights with `model`.

    `model` has no BatchNormalization. `ranges` are where the ends of each rounded output begin,
    `structures` those of the kernels that have one, which training keeps.
    """
    tools, keras = import_model_optimization(), import_keras()
    plan = plan_rounding(layers, scheme)
    kit = _define_kit(structures or {}, symmetric=scheme == "tensorrt")

    def annotate(layer: Any) -> Any:
        ours = type(layer).from_config(layer.get_config())
        if layer.name not in plan:
            return ours
        rounding = plan[layer.name]
        return tools.quantize_annotate.QuantizeAnnotate(ours, quantize_config=kit.config(rounding))

    with keras.utils.custom_object_scope(kit.objects):
        annotated = keras.models.clone_model(model, clone_function=annotate)
        aware = tools.quantize.quantize_apply(
            annotated, scheme=kit.scheme, quantized_layer_name_prefix=""
        )
    for layer in layers:
        wrapper = aware.get_layer(layer.name)
        set_inner_weights(wrapper, model.get_layer(layer.name).get_weights())
        rounding = plan.get(layer.name, Rounding(None, output=False))
        if rounding.output or rounding.pixels:
            ends = find_pixel_ends(model) if rounding.pixels else ranges[layer.name]
            low, high = mirror_ends(*ends) if scheme == "tensorrt" else ends
            variables = wrapper._output_quantizer_vars
            variables["min_var"].assign(low)
            variables["max_var"].assign(high)
    return aware


def find_pixel_ends(model: Any) -> tuple[float, float]:
    """Return the least and the greatest that a byte becomes; normalization is monotone."""
    values = model.get_layer(NORMALIZATION)(np.array([0, 255], np.float32).reshape(2, 1, 1, 1))
    return min(0.0, float(np.min(values))), max(0.0, float(np.max(values)))


def mirror_ends(low: float, high: float) -> tuple[float, float]:
    """Return the ends -128 s and 127 s of a range that TensorRT stores with the scale s.

    The zero point is 0 then, and stays so: averages of such ends are such ends.
    """
    from lesiontk.backends.tensorrt.quantize import symmetric_scale

    scale = symmetric_scale(low, high)
    return -128 * scale, 127 * scale


def strip_quantization(
    aware: Any,
    model: Any,
    layers: Sequence[Layer],
    structures: Mapping[str, KernelStructure] | None = None,
) -> Ranges:
    """Copy the trained weights into the float model; return layer -> the ends of its output."""
    ranges = {}
    for layer in layers:
        wrapper = aware.get_layer(layer.name)
        weights = get_inner_weights(wrapper)
        if structures and layer.name in structures:
            weights[0] = structures[layer.name].apply(weights[0])
        if weights:
            model.get_layer(layer.name).set_weights(weights)
        variables = getattr(wrapper, "_output_quantizer_vars", None)
        if variables and wrapper.quantize_config.output:
            ends = float(variables["min_var"].numpy()), float(variables["max_var"].numpy())
            ranges[layer.name] = ends
    return ranges


def find_moves(layers: Sequence[Layer], rounded: Collection[str]) -> dict[str, str]:
    """Return layer -> the rounded layer whose values it only moves or selects, at their scale."""
    origins = {name: name for name in rounded}
    for layer in layers:
        if layer.kind not in (*COMPUTING, *BORDER_KINDS) and layer.inputs[0] in origins:
            origins[layer.name] = origins[layer.inputs[0]]
    return {name: origin for name, origin in origins.items() if name != origin}


def _inner_variables(wrapper: Any) -> list[Any]:
    """Return kernel and bias: while a wrapper runs, the layer's own kernel is the rounded one."""
    layer = getattr(wrapper, "layer", wrapper)
    kernels = [entry[0] for entry in getattr(wrapper, "_weight_vars", [])]
    if not kernels:
        return list(layer.weights)
    bias = getattr(layer, "bias", None)
    return [*kernels, *([] if bias is None else [bias])]


def get_inner_weights(wrapper: Any) -> list[NDArray[np.float32]]:
    """Return the float weights of a layer, wrapped or not, in the order of the plain layer."""
    return [variable.numpy() for variable in _inner_variables(wrapper)]


def set_inner_weights(wrapper: Any, weights: Sequence[NDArray[np.float32]]) -> None:
    """Set the float weights of a layer, wrapped or not."""
    for variable, values in zip(_inner_variables(wrapper), weights, strict=True):
        variable.assign(values)


@dataclass(frozen=True, slots=True)
class _Kit:
    """tensorflow-model-optimization's classes, as they are needed here."""

    config: Any
    scheme: Any
    objects: dict[str, Any]


def _define_kit(structures: Mapping[str, KernelStructure], *, symmetric: bool) -> _Kit:
    tf, tools = import_tensorflow(), import_model_optimization()
    holders = {name: make_kernel_constraint(structure) for name, structure in structures.items()}
    base_quantizer: Any = tools.quantizers.Quantizer
    base_follower: Any = tools.quantizers.MovingAverageQuantizer
    base_config: Any = tools.quantize_config.QuantizeConfig

    class ChannelQuantizer(base_quantizer):  # type: ignore[misc]
        """Symmetric, per output channel, by today's weights: what the engine's scales will be.

        Of a depthwise kernel [h, w, in, multiplier] each input has outputs of its own. `hold` gives
        the kernel its structure before it is rounded.
        """

        def __init__(self, depthwise: bool, hold: Callable[[Any], Any] | None) -> None:
            self.depthwise, self.hold = depthwise, hold

        def build(self, tensor_shape: Any, name: str, layer: Any) -> dict[str, Any]:
            return {}

        def __call__(self, inputs: Any, training: Any, weights: Any, **kwargs: Any) -> Any:
            shape = inputs.shape
            if self.hold is not None:
                inputs = self.hold(inputs)
            flat = tf.reshape(inputs, [-1, shape[-2] * shape[-1] if self.depthwise else shape[-1]])
            top = tf.maximum(tf.reduce_max(tf.abs(tf.stop_gradient(flat)), axis=0), 1e-8)
            rounded = tf.quantization.fake_quant_with_min_max_vars_per_channel(
                flat, -top, top, num_bits=8, narrow_range=True
            )
            return tf.reshape(rounded, shape)

        def get_config(self) -> dict[str, Any]:
            return {"depthwise": self.depthwise, "hold": None}

    class FixedQuantizer(base_follower):  # type: ignore[misc]
        """Between ends that stay where they begin."""

        def __call__(self, inputs: Any, training: Any, weights: Any, **kwargs: Any) -> Any:
            return super().__call__(inputs, False, weights, **kwargs)

    steps = {"num_bits": 8, "per_axis": False, "symmetric": symmetric, "narrow_range": False}
    follow, stay = base_follower(**steps), FixedQuantizer(**steps)

    class RoundingConfig(base_config):  # type: ignore[misc]
        """One layer's `Rounding`."""

        def __init__(self, weight: str | None, output: bool, pixels: bool) -> None:
            self.weight, self.output, self.pixels = weight, output, pixels

        def get_weights_and_quantizers(self, layer: Any) -> list[Any]:
            if self.weight is None:
                return []
            quantizer = ChannelQuantizer(self.weight == "depthwise_kernel", holders.get(layer.name))
            return [(getattr(layer, self.weight), quantizer)]

        def get_activations_and_quantizers(self, layer: Any) -> list[Any]:
            return []

        def set_quantize_weights(self, layer: Any, quantize_weights: Any) -> None:
            if self.weight is not None:
                setattr(layer, self.weight, quantize_weights[0])

        def set_quantize_activations(self, layer: Any, quantize_activations: Any) -> None:
            """Outputs alone are rounded."""

        def get_output_quantizers(self, layer: Any) -> list[Any]:
            return [stay] if self.pixels else [follow] if self.output else []

        def get_config(self) -> dict[str, Any]:
            return {"weight": self.weight, "output": self.output, "pixels": self.pixels}

    class Untouched:
        """The layout and the registry of layers: the plan says all, so both do nothing."""

        def get_layout_transformer(self) -> Any:
            return self

        def get_quantize_registry(self) -> Any:
            return self

        def apply(self, model: Any, layer_quantize_map: Any) -> Any:
            return model, layer_quantize_map

        def supports(self, layer: Any) -> bool:
            return False

    return _Kit(
        config=lambda rounding: RoundingConfig(**asdict(rounding)),
        scheme=Untouched(),
        objects={
            "RoundingConfig": RoundingConfig,
            "QuantizeAnnotate": tools.quantize_annotate.QuantizeAnnotate,
        },
    )
