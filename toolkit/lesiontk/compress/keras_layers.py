"""Keras access for compression: a model's layers as records, and copies with fewer channels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lesiontk.compress.channel_graph import ChannelGraph
from lesiontk.compress.kernel_constraint import KernelStructure
from lesiontk.compress.layers import ELEMENTWISE, KNOWN, MIXING, Layer
from lesiontk.errors import DataError, UsageError
from lesiontk.system.frameworks import import_keras, import_tensorflow

HEAD = ("logits", "probabilities")
"""Layers that always compute in float32."""
FACTORS = ("scale", "offset")
"""The parameters of a Rescaling, scalar or per channel."""
Weights = list[NDArray[np.float32]]
Kept = NDArray[np.int64]


def read_layers(model: Any) -> tuple[Layer, ...]:
    """Return the layers of a ``tf_keras`` functional model in an order in which they can run.

    Raises `DataError` with the layer's name for one that is unsupported or used twice, and for a
    model of another kind or with several outputs.
    """
    _check_model(model)
    nodes = [
        node
        for depth in sorted(model._nodes_by_depth, reverse=True)
        for node in model._nodes_by_depth[depth]
    ]
    uses = [node.layer.name for node in nodes]
    twice = sorted({name for name in uses if uses.count(name) > 1})
    if twice:
        raise DataError(
            f"layer {twice[0]!r} is used {uses.count(twice[0])} times; expected each layer once, "
            "because its channels cannot fit several positions."
        )
    return tuple(_describe(node) for node in nodes)


def _check_model(model: Any) -> None:
    if not model._is_graph_network or isinstance(model, import_keras().Sequential):
        raise DataError(
            f"model {model.name!r} is a {type(model).__name__}; expected a functional model: "
            "tf_keras.Model(model.inputs, model.outputs) makes one of a Sequential."
        )
    if len(model.outputs) != 1:
        raise DataError(
            f"model {model.name!r} has {len(model.outputs)} outputs, of the layers "
            f"{', '.join(model.output_names)}; expected one: remove the others."
        )


def _describe(node: Any) -> Layer:
    layer = node.layer
    parents = [tensor.node.layer.name for tensor in node.keras_inputs]
    kind, activation = _name_kind(layer), _name_activation(layer)
    if kind == "Activation" and activation in MIXING:
        kind = "Softmax"
    config = layer.get_config() if kind in KNOWN else {}  # a custom class need not have one
    layout = config.get("data_format", "channels_last")
    axes = np.ravel(config.get("axis", -1)).tolist() if kind != "Softmax" else [-1]
    rank = len(layer.output_shape if isinstance(layer.output_shape, tuple) else ())
    if layout not in ("channels_last", None) or any(axis not in (-1, rank - 1) for axis in axes):
        raise DataError(f"layer {layer.name!r} ({kind}) has channels that are not last.")
    shape = node.output_shapes[0] if isinstance(node.output_shapes, list) else node.output_shapes
    for key in FACTORS:
        if np.shape(config.get(key, 0)) not in ((), (shape[-1],)):
            raise DataError(
                f"layer {layer.name!r} ({kind}) has the {key} {np.shape(config[key])}; expected a "
                f"number, or one for each of its {shape[-1]} channels."
            )
    return Layer(
        name=layer.name,
        kind=kind,
        inputs=tuple(parents),
        shape=tuple(int(extent) for extent in shape[1:]),
        kernel=tuple(config["kernel_size"]) if "kernel_size" in config else (1, 1),
        groups=layer.input_shape[-1] if kind == "DepthwiseConv2D" else config.get("groups", 1),
        multiplier=config.get("depth_multiplier", 1),
        has_bias=bool(config.get("use_bias", False)),
        activation=activation,
        unusual=kind == "ReLU"
        and bool(
            config["threshold"] or config["negative_slope"] or config["max_value"] not in (None, 6)
        ),
    )


def _name_kind(layer: Any) -> str:
    """Return the class of a layer of Keras; a custom one is named with its module."""
    kind = type(layer)
    is_keras = getattr(import_keras().layers, kind.__name__, None) is kind
    return kind.__name__ if is_keras else f"{kind.__module__}.{kind.__qualname__}"


def _name_activation(layer: Any) -> str:
    """Return the name of a layer's activation; a custom one is named with its module."""
    function = getattr(layer, "activation", None)
    if function is None:
        return "linear"
    name = getattr(function, "__name__", type(function).__name__)
    if name in (*ELEMENTWISE, *MIXING) and import_keras().activations.get(name) is not function:
        return f"{function.__module__}.{name}"
    return str(name)


def config_without_dtype(layer: Any) -> dict[str, Any]:
    """Return the layer's config without its dtype, so that Keras' current policy applies.

    Training may have set mixed precision since the model was loaded; the head stays in float32.
    """
    config = dict(layer.get_config())
    if layer.name not in HEAD:
        config.pop("dtype", None)
    return config


def call_copy(layer: Any, inputs: Any) -> Any:
    """Return what a copy of the layer, with its weights, makes of its input."""
    copied = type(layer).from_config(config_without_dtype(layer))
    output = copied(inputs)
    copied.set_weights(layer.get_weights())
    return output


def rebuild_model(
    model: Any, layers: Sequence[Layer], call: Callable[[Layer, Any, Any], Any]
) -> Any:
    """Return a model of the same inputs, in which `call` returns the output of each other layer.

    Its arguments are the layer's description, the layer itself, and its input: a tensor, or a list
    of several. `layers` are the model's; the output of the last is the model's.
    """
    keras = import_keras()
    tensors: dict[str, Any] = {}
    for layer in layers:
        source = model.get_layer(layer.name)
        if layer.kind == "InputLayer":
            tensors[layer.name] = keras.Input(source.input_shape[0][1:], name=layer.name)
            continue
        inputs = [tensors[name] for name in layer.inputs]
        tensors[layer.name] = call(layer, source, inputs if len(inputs) > 1 else inputs[0])
    return keras.Model(
        [tensors[name] for name in model.input_names], tensors[layers[-1].name], name=model.name
    )


def with_input_size(model: Any, size: int | None) -> Any:
    """Return a copy of the model for images of `size` pixels, or of any if it is None."""
    return copy_model(
        model, size, lambda layer: type(layer).from_config(config_without_dtype(layer))
    )


def copy_model(model: Any, size: int | None, clone: Callable[[Any], Any]) -> Any:
    """Return a model with the same weights, of the layers that `clone` returns."""
    keras = import_keras()
    image = keras.Input((size, size, 3), name=model.input_names[0])
    copied = keras.models.clone_model(model, input_tensors=image, clone_function=clone)
    for layer in model.layers:
        if weights := layer.get_weights():
            copied.get_layer(layer.name).set_weights(weights)
    return copied


def require_input_size(model: Any, size: int, otherwise: str) -> Any:
    """Return the model of another input size; `UsageError` with `otherwise` if there is none."""
    try:
        return with_input_size(model, size)
    except ValueError as error:  # a layer is left without pixels, or its weights do not fit
        reason = " ".join([line for line in str(error).splitlines() if line][:2])
        raise UsageError(
            f"{otherwise}: {model.name} does not accept images of {size} pixels: {reason}"
        ) from error


def remove_channels(model: Any, graph: ChannelGraph, removed: frozenset[int]) -> Any:
    """Return the model without these channels.

    Raises `DataError` if a fixed channel is among them, or a layer would lose its last.
    """
    narrowed = {layer.name: layer for layer in graph.narrow(removed)}

    def clone(layer: Any) -> Any:
        config = config_without_dtype(layer)
        channels = narrowed[layer.name].channels
        for key in ("filters", "units"):
            if key in config:
                config[key] = channels
        for key in FACTORS:
            if np.shape(config.get(key, 0)):
                kept = graph.keep_outputs(layer.name, removed)
                config[key] = np.asarray(config[key])[kept].tolist()
        if "target_shape" in config:
            config["target_shape"] = narrowed[layer.name].shape
        return type(layer).from_config(config)

    smaller = import_keras().models.clone_model(model, clone_function=clone)
    for layer in graph.layers:
        weights = model.get_layer(layer.name).get_weights()
        if weights:
            inputs = graph.keep_inputs(layer.name, removed)
            outputs = graph.keep_outputs(layer.name, removed)
            kept = SLICES[layer.kind](layer, weights, inputs[0], outputs)
            smaller.get_layer(layer.name).set_weights(kept)
    return smaller


def make_kernel_constraint(structure: KernelStructure) -> Callable[[Any], Any]:
    """Return `KernelStructure.apply` of a TensorFlow tensor; gradients pass through it."""
    tf = import_tensorflow()
    kept = None if structure.kept is None else tf.constant(structure.kept.astype(np.float32))
    ties = counts = None
    if structure.ties is not None:
        flat = structure.ties.ravel()
        ties = tf.constant(flat)
        counts = tf.constant(np.maximum(np.bincount(flat), 1).astype(np.float32))

    def constrain(kernel: Any) -> Any:
        if kept is not None:
            kernel = kernel * kept
        if ties is not None and counts is not None:
            sums = tf.math.unsorted_segment_sum(tf.reshape(kernel, [-1]), ties, len(counts))
            kernel = tf.reshape(tf.gather(sums / counts, ties), kernel.shape)
        return kernel

    return constrain


def _slice_conv(layer: Layer, weights: Weights, inputs: Kept, outputs: Kept) -> Weights:
    kernel, *bias = weights
    if layer.groups == 1:
        kernel = kernel[:, :, inputs]
    return [kernel[..., outputs], *(b[outputs] for b in bias)]


def _slice_depthwise(layer: Layer, weights: Weights, inputs: Kept, outputs: Kept) -> Weights:
    kernel, *bias = weights
    return [kernel[:, :, inputs], *(b[outputs] for b in bias)]


def _slice_separable(layer: Layer, weights: Weights, inputs: Kept, outputs: Kept) -> Weights:
    depthwise, pointwise, *bias = weights
    middle = (inputs[:, np.newaxis] * layer.multiplier + np.arange(layer.multiplier)).ravel()
    return [
        depthwise[:, :, inputs],
        pointwise[:, :, middle][..., outputs],
        *(b[outputs] for b in bias),
    ]


def _slice_dense(layer: Layer, weights: Weights, inputs: Kept, outputs: Kept) -> Weights:
    kernel, *bias = weights
    return [kernel[inputs][:, outputs], *(b[outputs] for b in bias)]


def _slice_channels(layer: Layer, weights: Weights, inputs: Kept, outputs: Kept) -> Weights:
    return [values[..., outputs] for values in weights]


SLICES: dict[str, Callable[[Layer, Weights, Kept, Kept], Weights]] = {
    "Conv2D": _slice_conv,
    "DepthwiseConv2D": _slice_depthwise,
    "SeparableConv2D": _slice_separable,
    "Dense": _slice_dense,
    "BatchNormalization": _slice_channels,
    "PReLU": _slice_channels,
}
"""Layer class -> the function that removes channels from its weights."""
