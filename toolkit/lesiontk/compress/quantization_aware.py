"""Quantization-aware training by fake quantization with tensorflow-model-optimization.

Weights are rounded per channel, symmetrically, to integers from -127 to 127; activations per tensor
to 256 steps of a range that follows the values, exactly where the engine rounds them. Two schemes:
``tflite`` (any zero point, every tensor) and ``tensorrt`` (zero point 0; the inputs of weighted
layers and average pools, including normalized pixels, and only the skip of an addition, as NVIDIA
recommends). After training the fake quantization is removed: the result is a float model whose
weights and ranges any back end quantizes.
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
"""Layer -> its attribute with the quantized weight."""
COMPUTING = (
    *WEIGHTS, *JOINING, *ACTIVATIONS, "Concatenate", "AveragePooling2D", "GlobalAveragePooling2D",
)  # fmt: skip
"""Layers that compute new values; the others move or select values and keep their scale."""
AVERAGED = ("AveragePooling2D", "GlobalAveragePooling2D")
WITH_RELU = (*WEIGHTS, "Add", "Subtract", "Multiply", "Average", "AveragePooling2D", "Rescaling")
"""Layers that TFLite fuses with a following ReLU or ReLU6."""
GRAPH_IO = ("image", "probabilities")
GRAPH_IO_KINDS = ("InputLayer", "Rescaling", "Softmax")
NORMALIZATION = "normalisation"
"""The first layer; TFLite folds it into the scale of its input."""


UNSUPPORTED = {
    "SeparableConv2D": "has two kernels in one; expected a DepthwiseConv2D and a Conv2D with a "
    "quantizable tensor between: import the model again, or",
    "LayerNormalization": "is several operators in an int8 engine, which qat cannot simulate",
}
"""Unsupported layers -> the reason."""


@dataclass(frozen=True, slots=True)
class Rounding:
    """The quantization of one layer: the attribute of its weight, and whether of its output.

    With `pixels` its output is quantized in the known range of all bytes.
    """

    weight: str | None
    output: bool
    pixels: bool = False


def plan_rounding(layers: Sequence[Layer], scheme: Scheme) -> dict[str, Rounding]:
    """Return layer -> its quantization; layers without any are left out.

    Raises `DataError` for an unsupported layer with weights.
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
        if layer.kind in UNSUPPORTED:
            raise DataError(
                f"layer {layer.name!r} ({layer.kind}) {UNSUPPORTED[layer.kind]}; quantize without "
                "qat."
            )
        if layer.name in GRAPH_IO:
            continue
        weight = WEIGHTS.get(layer.kind)
        after = find_next(layer, readers)
        output = layer.name in computing and not (
            after and (after.kind == "Concatenate" or _is_joined(layer, after, scheme))
        )  # the output of a concatenation is rounded, not its inputs
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
    """Return whether any reader of `name` quantizes its input, in the scheme of TensorRT.

    An addition of two layers with weights is fused with the later one, by the order in `weighted`.
    Layers that only move values are skipped.
    """
    for layer in readers.get(name, []):
        if layer.kind in (*WEIGHTS, *AVERAGED):
            return True
        if layer.kind == "Add":
            fused = max(set(layer.inputs) & set(weighted), key=weighted.__getitem__, default=name)
            if name != fused:
                return True
        moves = layer.kind not in (*COMPUTING, *GRAPH_IO_KINDS)
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

    `model` has no BatchNormalization. `ranges` are the initial ranges of the quantized outputs,
    `structures` those of the kernels, which training preserves.
    """
    tools, keras = import_model_optimization(), import_keras()
    plan = plan_rounding(layers, scheme)
    kit = _define_kit(structures or {}, symmetric=scheme == "tensorrt")

    def annotate(layer: Any) -> Any:
        copied = type(layer).from_config(layer.get_config())
        if layer.name not in plan:
            return copied
        rounding = plan[layer.name]
        return tools.quantize_annotate.QuantizeAnnotate(
            copied, quantize_config=kit.config(rounding)
        )

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
    """Return the range of normalized bytes; normalization is monotonic."""
    values = model.get_layer(NORMALIZATION)(np.array([0, 255], np.float32).reshape(2, 1, 1, 1))
    return min(0.0, float(np.min(values))), max(0.0, float(np.max(values)))


def mirror_ends(low: float, high: float) -> tuple[float, float]:
    """Return the range -128 s to 127 s that TensorRT stores with the scale s.

    Its zero point is 0, also for averages of such ranges.
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
    """Copy the trained weights into the float model, and return layer -> the range of its
    output."""
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
        if layer.kind not in (*COMPUTING, *GRAPH_IO_KINDS) and layer.inputs[0] in origins:
            origins[layer.name] = origins[layer.inputs[0]]
    return {name: origin for name, origin in origins.items() if name != origin}


def _inner_variables(wrapper: Any) -> list[Any]:
    """Return kernel and bias variables; in a wrapped layer its own kernel is the quantized one."""
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
    """The required classes of tensorflow-model-optimization."""

    config: Any
    scheme: Any
    objects: dict[str, Any]


def _define_kit(structures: Mapping[str, KernelStructure], *, symmetric: bool) -> _Kit:
    tf, tools = import_tensorflow(), import_model_optimization()
    constraints = {
        name: make_kernel_constraint(structure) for name, structure in structures.items()
    }
    base_quantizer: Any = tools.quantizers.Quantizer
    base_follower: Any = tools.quantizers.MovingAverageQuantizer
    base_config: Any = tools.quantize_config.QuantizeConfig

    class ChannelQuantizer(base_quantizer):  # type: ignore[misc]
        """Symmetric, per output channel, with the scales of the current weights, as in the engine.

        A depthwise kernel is [h, w, in, multiplier], with outputs for each input. `constrain`
        applies the kernel's structure before quantization.
        """

        def __init__(self, depthwise: bool, constrain: Callable[[Any], Any] | None) -> None:
            self.depthwise, self.constrain = depthwise, constrain

        def build(self, tensor_shape: Any, name: str, layer: Any) -> dict[str, Any]:
            return {}

        def __call__(self, inputs: Any, training: Any, weights: Any, **kwargs: Any) -> Any:
            shape = inputs.shape
            if self.constrain is not None:
                inputs = self.constrain(inputs)
            flat = tf.reshape(inputs, [-1, shape[-2] * shape[-1] if self.depthwise else shape[-1]])
            top = tf.maximum(tf.reduce_max(tf.abs(tf.stop_gradient(flat)), axis=0), 1e-8)
            rounded = tf.quantization.fake_quant_with_min_max_vars_per_channel(
                flat, -top, top, num_bits=8, narrow_range=True
            )
            return tf.reshape(rounded, shape)

        def get_config(self) -> dict[str, Any]:
            return {"depthwise": self.depthwise, "constrain": None}

    class FixedQuantizer(base_follower):  # type: ignore[misc]
        """A quantizer with a fixed range."""

        def __call__(self, inputs: Any, training: Any, weights: Any, **kwargs: Any) -> Any:
            return super().__call__(inputs, False, weights, **kwargs)

    steps = {"num_bits": 8, "per_axis": False, "symmetric": symmetric, "narrow_range": False}
    moving_range, fixed_range = base_follower(**steps), FixedQuantizer(**steps)

    class RoundingConfig(base_config):  # type: ignore[misc]
        """One layer's `Rounding`."""

        def __init__(self, weight: str | None, output: bool, pixels: bool) -> None:
            self.weight, self.output, self.pixels = weight, output, pixels

        def get_weights_and_quantizers(self, layer: Any) -> list[Any]:
            if self.weight is None:
                return []
            quantizer = ChannelQuantizer(
                self.weight == "depthwise_kernel", constraints.get(layer.name)
            )
            return [(getattr(layer, self.weight), quantizer)]

        def get_activations_and_quantizers(self, layer: Any) -> list[Any]:
            return []

        def set_quantize_weights(self, layer: Any, quantize_weights: Any) -> None:
            if self.weight is not None:
                setattr(layer, self.weight, quantize_weights[0])

        def set_quantize_activations(self, layer: Any, quantize_activations: Any) -> None:
            """Only outputs are quantized."""

        def get_output_quantizers(self, layer: Any) -> list[Any]:
            return [fixed_range] if self.pixels else [moving_range] if self.output else []

        def get_config(self) -> dict[str, Any]:
            return {"weight": self.weight, "output": self.output, "pixels": self.pixels}

    class NoTransforms:
        """An empty layout and registry of layers, because the plan defines the quantization."""

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
        scheme=NoTransforms(),
        objects={
            "RoundingConfig": RoundingConfig,
            "QuantizeAnnotate": tools.quantize_annotate.QuantizeAnnotate,
        },
    )
