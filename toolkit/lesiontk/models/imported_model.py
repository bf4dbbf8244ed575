"""A user's functional model, built anew in Keras 2 in the frame that all networks here share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lesiontk.errors import DataError, UsageError
from lesiontk.frameworks import import_keras
from lesiontk.models.imported_affine import Affine, as_factor
from lesiontk.models.imported_config import refuse_model
from lesiontk.models.imported_file import load_foreign_model
from lesiontk.models.imported_head import find_head
from lesiontk.models.imported_layers import (
    MERGING,
    Apply,
    ForeignLayer,
    describe_layer,
    rebuild_layer,
)
from lesiontk.models.imported_operations import (
    Channel,
    apply_operation,
    describe_operation,
    operation_name,
)
from lesiontk.models.imported_pixels import PIXELS

TOLERANCE = 1e-4
NORMALISED = "normalisation"
"""The layer that the bytes of a picture go through first."""
RESERVED = ("image", "logits", "probabilities", "features")


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
    keras = import_keras()
    image = keras.Input((size, size, 3), name="image")
    build = _Build()
    output = build.real(build.follow(_read_graph(source), PIXELS[pixels].of(image, NORMALISED)))
    build.set_weights()
    head = find_head(output)
    if head.outputs != len(labels):
        raise DataError(
            f"{path.name} tells {head.outputs} classes apart, and there are {len(labels)} labels: "
            f"{', '.join(labels)}; expected as many: name another task with --task."
        )
    features = head.features
    if len(features.shape) > 2:
        features = keras.layers.Flatten(name="features")(features)
    columns = [list(labels).index(label) for label in order]
    dense = keras.layers.Dense(len(order), name="logits", dtype="float32")
    logits = dense(features)
    dense.set_weights([head.kernel[:, columns], head.bias[columns]])
    probabilities = keras.layers.Softmax(name="probabilities", dtype="float32")(logits)
    model = keras.Model(image, probabilities, name="imported")
    asked = pictures.astype(np.float32)
    fed = PIXELS[pixels].of(asked, NORMALISED).apply(asked).astype(np.float32)
    expected = head.probabilities(np.asarray(source(fed, training=False)))
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
class _Node:
    """One use of a layer: the tensors in and out, by identity, and all that it was called with."""

    layer: Any
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    positional: tuple[Any, ...]
    named: Mapping[str, Any]


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
            tuple(node.arguments.args),
            {**_parameters(node.operation), **node.arguments.kwargs},
        )
    outputs = node.outputs if isinstance(node.outputs, list | tuple) else [node.outputs]
    return _Node(
        node.layer,
        tuple(id(tensor) for tensor in node.keras_inputs),
        tuple(id(tensor) for tensor in outputs),
        tuple(node.call_args),
        dict(node.call_kwargs),
    )


def _parameters(operation: Any) -> dict[str, Any]:
    """Return what an operation of Keras 3 was made with: its axis, its slope."""
    return {key: value for key, value in vars(operation).items() if not key.startswith("_")}


class _Build:
    """Layers of Keras 2 made so far, with the weights that wait for them."""

    def __init__(self) -> None:
        self.made: dict[int, Apply | None] = {}
        self.left_out: list[str] = []
        self._waiting: list[tuple[str, str, Any, list[Any]]] = []
        self._names: set[str] = set(RESERVED)
        self._computed: dict[int, tuple[Affine, Any]] = {}

    def follow(self, graph: _Graph, x: Any) -> Any:
        """Return what the graph makes of `x`: a Keras tensor, or one that is not computed yet."""
        tensors = {graph.inputs[0]: x}
        needed = _list_needed(graph)
        for node in graph.nodes:
            if node.outputs[0] in tensors or node.outputs[0] not in needed:
                continue
            tensors[node.outputs[0]] = self._apply(node, tensors)
        return tensors[graph.output]

    def _apply(self, node: _Node, tensors: Mapping[int, Any]) -> Any:
        inputs = [tensors[key] for key in node.inputs]
        if hasattr(node.layer, "_nodes_by_depth") or hasattr(node.layer, "_functional"):
            return self.follow(_read_graph(node.layer), inputs[0])
        operation = operation_name(node.layer)
        if operation is not None:
            positional, named = _fill((list(node.positional), dict(node.named)), tensors)
            described = describe_operation(node.layer, operation)
            return apply_operation(described, self, positional, named)
        layer = describe_layer(node.layer)
        if (len(inputs) > 1) != (layer.kind in MERGING) or not inputs:
            raise layer.refuse(f"it joins {len(inputs)} tensors")
        if id(node.layer) not in self.made:
            self.made[id(node.layer)] = rebuild_layer(layer, self)
            if self.made[id(node.layer)] is None:
                self.left_out.append(layer.name)
        apply = self.made[id(node.layer)]
        if apply is None:
            return inputs[0]
        try:
            return apply(inputs if len(inputs) > 1 else inputs[0])
        except (TypeError, ValueError) as error:
            raise layer.refuse(str(error)) from error

    def layer(self, kind: str, name: str, weights: Sequence[Any] = (), /, **config: Any) -> Any:
        """Return a layer of Keras 2 that `set_weights` gives its weights."""
        made = getattr(import_keras().layers, kind)(**config, name=self._free_name(name))
        if len(weights):
            self._waiting.append((name, kind, made, list(weights)))
        return made

    def real(self, value: Any) -> Any:
        """Return the Keras tensor of a value; what computes it is made once."""
        if isinstance(value, Channel):
            value = value.source.take([value.index])
        if not isinstance(value, Affine):
            return value
        if value.is_identity:
            return value.tensor
        known = self._computed.get(id(value))
        if known is None:
            known = self._computed[id(value)] = value, self._compute(value)
        return known[1]

    def _compute(self, value: Affine) -> Any:
        x = value.tensor
        if not value.is_ordered:
            kernel = np.zeros((1, 1, x.shape[-1], value.channels), np.float32)
            kernel[0, 0, list(value.order), range(value.channels)] = 1
            x = self.layer(
                "Conv2D", f"{value.name}_order", [kernel], filters=value.channels, kernel_size=1,
                use_bias=False,
            )(x)  # fmt: skip
        factors = [as_factor(factor) for factor in (value.scale, value.offset)]
        if factors == [1.0, 0.0]:
            return x
        return self.layer("Rescaling", value.name, scale=factors[0], offset=factors[1])(x)

    def set_weights(self) -> None:
        """Give the layers their weights, now that they are built."""
        for name, kind, ours, weights in self._waiting:
            try:
                ours.set_weights(weights)
            except ValueError as error:
                raise ForeignLayer(kind, name, {}, ()).refuse(str(error)) from error

    def _free_name(self, name: str) -> str:
        free, number = name, 1
        while free in self._names:
            free, number = f"{name}_{number}", number + 1
        self._names.add(free)
        return free


def _fill(value: Any, tensors: Mapping[int, Any]) -> Any:
    """Return arguments with what is built in the place of the user's tensors."""
    if id(value) in tensors:
        return tensors[id(value)]
    if isinstance(value, list | tuple):
        return type(value)(_fill(entry, tensors) for entry in value)
    if isinstance(value, dict):
        return {key: _fill(entry, tensors) for key, entry in value.items()}
    return value


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
