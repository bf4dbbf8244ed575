"""A user's functional model, built anew in Keras 2 in the frame that all networks here share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lesiontk.errors import DataError, UsageError
from lesiontk.frameworks import import_keras
from lesiontk.models.imported_config import refuse_model
from lesiontk.models.imported_file import load_foreign_model
from lesiontk.models.imported_layers import (
    MERGING,
    ForeignLayer,
    describe_layer,
    rebuild_layer,
)

PIXELS: dict[str, tuple[float, float]] = {
    "0..255": (1.0, 0.0),
    "0..1": (1 / 255, 0.0),
    "-1..1": (1 / 127.5, -1.0),
}
"""What the model was fed -> (scale, offset) of the bytes."""
TOLERANCE = 1e-4
RESERVED = ("image", "normalisation", "logits", "probabilities")


@dataclass(frozen=True, slots=True)
class ImportedModel:
    """The model built anew, and the greatest difference of its outputs from the user's.

    `left_out` names the layers that only training needs.
    """

    model: Any
    layers: int
    left_out: tuple[str, ...]
    greatest_difference: float


def import_model(
    path: Path,
    pixels: str,
    labels: Sequence[str],
    order: Sequence[str],
    pictures: NDArray[np.uint8],
) -> ImportedModel:
    """Return the model of a file with its labels in the order `order`, compared with the original.

    `pixels` is a key of `PIXELS`; `labels` are the user's, in the order of the model's outputs. One
    sigmoid output is the second of two labels. Both are asked about `pictures` [N, S, S, 3] RGB.
    Raises `DataError` with the layer's name for what is not understood, and if the outputs differ
    by more than 1e-4.
    """
    if sorted(labels) != sorted(order):
        raise UsageError(
            f"imported.labels are {', '.join(labels)}; expected {', '.join(order)}, in the order "
            "of the model's outputs: say it with --labels."
        )
    source = load_foreign_model(path)
    size = input_size(source, path)
    if size != pictures.shape[1]:
        raise UsageError(
            f"{path.name} takes {size} x {size} pixels, and data.image_size is "
            f"{pictures.shape[1]}; expected the same."
        )
    head, inner = _split_head(source, path)
    if head.outputs != len(labels):
        raise DataError(
            f"{path.name} tells {head.outputs} classes apart, and there are {len(labels)} labels: "
            f"{', '.join(labels)}; expected as many: name another task with --task."
        )
    keras = import_keras()
    image = keras.Input((size, size, 3), name="image")
    scale, offset = PIXELS[pixels]
    x = image
    if (scale, offset) != (1.0, 0.0):
        x = keras.layers.Rescaling(scale, [offset] * 3, name="normalisation")(x)
    build = _Build()
    features = build.follow(inner, x)
    columns = [list(labels).index(label) for label in order]
    dense = keras.layers.Dense(len(order), name="logits", dtype="float32")
    logits = dense(features)
    dense.set_weights([head.kernel[:, columns], head.bias[columns]])
    probabilities = keras.layers.Softmax(name="probabilities", dtype="float32")(logits)
    model = keras.Model(image, probabilities, name="imported")
    build.set_weights()
    asked = pictures.astype(np.float32)
    expected = head.probabilities(np.asarray(source(asked * scale + offset, training=False)))
    received = np.asarray(model(asked, training=False))
    difference = float(np.abs(received - expected[:, columns]).max())
    if not difference <= TOLERANCE:
        raise DataError(
            f"{path.name} was built anew and answers otherwise (greatest difference of a "
            f"probability {difference:.2g}; expected at most {TOLERANCE})."
        )
    return ImportedModel(model, len(build.made), tuple(build.left_out), difference)


def input_size(source: Any, path: Path) -> int:
    """Return S of a model with one input [N, S, S, 3]; `DataError` for any other."""
    inputs, outputs = list(getattr(source, "inputs", None) or []), source.outputs or []
    shapes = [tuple(tensor.shape) for tensor in inputs]
    if len(shapes) != 1 or len(outputs) != 1:
        raise DataError(f"{path.name} has {len(shapes)} inputs and {len(outputs)} outputs; "
                        "expected one of each.")  # fmt: skip
    (shape,) = shapes
    if len(shape) != 4 or shape[1] != shape[2] or shape[1] is None or shape[3] != 3:
        raise DataError(f"{path.name} takes {list(shape)}; expected [N, S, S, 3] of a fixed S.")
    return int(shape[1])


@dataclass(frozen=True, slots=True)
class _Head:
    """The last dense layer, as weights [F, C] and [C] of a softmax's logits."""

    kernel: NDArray[np.float32]
    bias: NDArray[np.float32]
    kind: str

    @property
    def outputs(self) -> int:
        return int(self.kernel.shape[1])

    def probabilities(self, outputs: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return what the user's outputs mean, [N, C]."""
        if self.kind == "sigmoid":
            return np.concatenate([1 - outputs, outputs], axis=1)
        if self.kind == "linear":
            powers = np.exp(outputs - outputs.max(axis=1, keepdims=True))
            return np.asarray(powers / powers.sum(axis=1, keepdims=True))
        return outputs


@dataclass(frozen=True, slots=True)
class _Node:
    """One use of a layer: the tensors in and out, by identity."""

    layer: Any
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class _Graph:
    """The uses of a model's layers in an order in which they can run, and its ends."""

    nodes: tuple[_Node, ...]
    inputs: tuple[int, ...]
    output: int


def _read_graph(model: Any) -> _Graph:
    """Return the graph of a functional or sequential model of either Keras."""
    inner = getattr(model, "_functional", None) or model  # Keras 3's Sequential wraps one
    depths = getattr(inner, "_nodes_by_depth", None)
    if depths is None:
        raise refuse_model(type(model).__name__, model.name)
    nodes = [node for depth in sorted(depths, reverse=True) for node in depths[depth]]
    return _Graph(
        tuple(_read_node(node) for node in nodes),
        tuple(id(tensor) for tensor in inner.inputs),
        id(inner.outputs[0]),
    )


def _read_node(node: Any) -> _Node:
    if hasattr(node, "operation"):  # Keras 3
        return _Node(
            node.operation,
            tuple(id(tensor) for tensor in node.input_tensors),
            tuple(id(tensor) for tensor in node.output_tensors),
        )
    outputs = node.outputs if isinstance(node.outputs, list | tuple) else [node.outputs]
    return _Node(
        node.layer,
        tuple(id(tensor) for tensor in node.keras_inputs),
        tuple(id(tensor) for tensor in outputs),
    )


def _split_head(source: Any, path: Path) -> tuple[_Head, _Graph]:
    """Return the last dense layer, and the graph that ends before it."""
    graph = _read_graph(source)
    made = {node.outputs[0]: node for node in graph.nodes}
    tensor, activation = graph.output, ""
    while True:
        node = made[tensor]
        layer = describe_layer(node.layer)
        if layer.kind == "Softmax":
            activation = "softmax"
        elif layer.kind == "Activation" and layer.config["activation"] in ("softmax", "sigmoid"):
            activation = str(layer.config["activation"])
        elif layer.kind == "Dense":
            break
        else:
            raise layer.refuse("a classifier ends with a Dense layer, then softmax or sigmoid")
        (tensor,) = node.inputs
    own = layer.config["activation"]
    kind = activation or (own if isinstance(own, str) else "")
    if own not in ("linear", kind) or kind not in ("softmax", "sigmoid", "linear"):
        raise layer.refuse(f"its activation is {own}; expected softmax, sigmoid or none")
    kernel = layer.weights[0]
    bias = layer.weights[1] if len(layer.weights) > 1 else np.zeros(kernel.shape[1], np.float32)
    if kernel.shape[1] == 1 and kind == "sigmoid":  # sigmoid(z) is the second of softmax(0, z)
        kernel = np.concatenate([np.zeros_like(kernel), kernel], axis=1)
        bias = np.concatenate([np.zeros_like(bias), bias])
    elif kind == "sigmoid" or kernel.shape[1] == 1:
        raise layer.refuse(f"{kernel.shape[1]} outputs with {kind}; expected softmax, or one "
                           "output with sigmoid")  # fmt: skip
    (before,) = node.inputs
    return _Head(kernel, bias, kind), _Graph(graph.nodes, graph.inputs, before)


class _Build:
    """Layers of Keras 2 made so far, with the weights that wait for them."""

    def __init__(self) -> None:
        self.made: dict[int, Any] = {}
        self.left_out: list[str] = []
        self._waiting: list[tuple[ForeignLayer, Any, list[Any]]] = []
        self._names: set[str] = set(RESERVED)

    def follow(self, graph: _Graph, x: Any) -> Any:
        """Return the tensor that the graph makes of `x`."""
        tensors = {graph.inputs[0]: x}
        needed = _list_needed(graph)
        for node in graph.nodes:
            if node.outputs[0] in tensors or node.outputs[0] not in needed:
                continue
            tensors[node.outputs[0]] = self._apply(node, [tensors[key] for key in node.inputs])
        return tensors[graph.output]

    def _apply(self, node: _Node, inputs: list[Any]) -> Any:
        if hasattr(node.layer, "_nodes_by_depth") or hasattr(node.layer, "_functional"):
            return self.follow(_read_graph(node.layer), inputs[0])
        key, layer = id(node.layer), describe_layer(node.layer)
        if (len(inputs) > 1) != (layer.kind in MERGING):
            raise layer.refuse(f"it joins {len(inputs)} tensors")
        if key not in self.made:
            rebuilt = rebuild_layer(layer, name=self._free_name(layer.name))
            if rebuilt is None:
                self.left_out.append(layer.name)
                return inputs[0]
            self.made[key], weights = rebuilt
            self._waiting.append((layer, self.made[key], weights))
        return self.made[key](inputs if len(inputs) > 1 else inputs[0])

    def set_weights(self) -> None:
        """Give the layers their weights, now that they are built."""
        for layer, ours, weights in self._waiting:
            try:
                ours.set_weights(weights)
            except ValueError as error:
                raise layer.refuse(str(error)) from error

    def _free_name(self, name: str) -> str:
        free, number = name, 1
        while free in self._names:
            free, number = f"{name}_{number}", number + 1
        self._names.add(free)
        return free


def _list_needed(graph: _Graph) -> set[int]:
    """Return the tensors on the way from the input to the output."""
    made = {tensor: node for node in graph.nodes for tensor in node.outputs}
    needed, waiting = set(), [graph.output]
    while waiting:
        tensor = waiting.pop()
        if tensor not in needed:
            needed.add(tensor)
            waiting += made[tensor].inputs if tensor in made else ()
    return needed
