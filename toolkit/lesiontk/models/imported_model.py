"""A user's functional model, rebuilt in Keras 2 with the input and head of all networks."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lesiontk.errors import DataError, UsageError, suggest
from lesiontk.models.imported_affine import Affine, as_factor
from lesiontk.models.imported_file import load_foreign_model
from lesiontk.models.imported_graph import Graph, Node, is_model, read_graph
from lesiontk.models.imported_head import find_head
from lesiontk.models.imported_layers import (
    MERGING,
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
from lesiontk.system.frameworks import import_keras

TOLERANCE = 1e-4
NORMALIZED = "normalisation"
"""The name of the first layer, which normalizes pixels; published models have it, too."""
RESERVED = ("image", "logits", "probabilities", "features")


@dataclass(frozen=True, slots=True)
class ImportedModel:
    """The rebuilt model, and the greatest difference of its outputs from the original's.

    `left_out` names the dropped layers, which have no effect at inference, `copied` the layers with
    weights and several calls: each call has its own layer, with the same weights.
    """

    model: Any
    layers: int
    left_out: tuple[str, ...]
    copied: tuple[str, ...]
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
    sigmoid output is the second of two labels. Both models are run on `pictures` [N, S, S, 3] RGB.
    Raises `DataError` with the layer's name for an unsupported layer, and if the outputs differ by
    more than 1e-4.
    """
    labels = match_labels(labels, order)
    source = load_foreign_model(path)
    check_finite(source)
    size = input_size(source, path)
    if size not in (None, pictures.shape[1]):
        raise UsageError(
            f"{path.name} takes {size} x {size} pixels, but data.image_size is "
            f"{pictures.shape[1]}; expected the same."
        )
    keras = import_keras()
    image = keras.Input(pictures.shape[1:], name="image")
    build = _Build()
    (made,) = build.follow(read_graph(source), [PIXELS[pixels].of(image, NORMALIZED)])
    output = build.real(made)
    build.set_weights()
    head = find_head(output)
    if head.outputs != len(labels):
        raise DataError(
            f"{path.name} has {head.outputs} classes, but there are {len(labels)} labels: "
            f"{', '.join(labels)}; expected as many: specify another task with --task."
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
    pixel_values = pictures.astype(np.float32)
    fed = PIXELS[pixels].of(pixel_values, NORMALIZED).apply(pixel_values).astype(np.float32)
    expected = head.probabilities(np.asarray(source(fed, training=False)))
    received = np.asarray(model(pixel_values, training=False))
    difference = float(np.abs(received - expected[:, columns]).max())
    if not difference <= TOLERANCE:
        raise DataError(
            f"{path.name} was rebuilt and its outputs differ (greatest difference of a "
            f"probability {difference:.2g}; expected at most {TOLERANCE})."
        )
    return ImportedModel(
        model,
        build.layers,
        tuple(build.left_out.values()),
        tuple(build.copied.values()),
        difference,
    )


def match_labels(labels: Sequence[str], order: Sequence[str]) -> tuple[str, ...]:
    """Return the task's labels `order` in the order of `labels`, whatever their case.

    Raises `UsageError` unless each of the task's labels occurs once.
    """
    spelled = {label.casefold(): label for label in order}
    known = len(spelled) == len(order)  # if two labels differ only by case, case matters
    matched = tuple(spelled.get(label.casefold(), label) if known else label for label in labels)
    if sorted(matched) != sorted(order):
        unknown = next((label for label in matched if label not in order), None)
        hint = suggest(unknown, order) if unknown else ""
        raise UsageError(
            f"imported.labels are {', '.join(labels)}; expected {', '.join(order)}, in the order "
            f"of the model's outputs: specify it with --labels.{hint}"
        )
    return matched


def check_finite(source: Any) -> None:
    """Raise `DataError` with the layer's name if a weight of the model is NaN or infinite."""
    for layer in source.layers:
        if is_model(layer):
            check_finite(layer)
        elif layer.weights:
            described = describe_layer(layer)
            bad = sum(int((~np.isfinite(values)).sum()) for values in described.weights)
            if bad:
                raise described.refuse(
                    f"{bad:,} of its weights are not finite; the training diverged, "
                    "expected the weights of an earlier epoch"
                )


def input_size(source: Any, path: Path) -> int | None:
    """Return S of a model with one input [N, S, S, 3], or None if it accepts any size.

    Raises `DataError` for any other input.
    """
    inputs, outputs = list(getattr(source, "inputs", None) or []), source.outputs or []
    shapes = [tuple(tensor.shape) for tensor in inputs]
    if len(shapes) != 1 or len(outputs) != 1:
        raise DataError(f"{path.name} has {len(shapes)} inputs and {len(outputs)} outputs; "
                        "expected one of each.")  # fmt: skip
    (shape,) = shapes
    if len(shape) != 4 or shape[1] != shape[2] or shape[3] != 3:
        raise DataError(f"{path.name} takes {list(shape)}; expected [N, S, S, 3].")
    return None if shape[1] is None else int(shape[1])


class _Build:
    """The Keras 2 layers built so far, with the weights to set.

    A layer that is called twice is built twice, with the same weights, so that back ends, pruning
    and quantization get layers with one input each.
    """

    def __init__(self) -> None:
        self.layers = 0
        self.uses: Counter[int] = Counter()
        self.left_out: dict[int, str] = {}
        self.copied: dict[int, str] = {}
        self._waiting: list[tuple[str, str, Any, list[Any]]] = []
        self._names: set[str] = set(RESERVED)
        self._computed: dict[int, tuple[Affine, Any]] = {}

    def follow(self, graph: Graph, values: Sequence[Any]) -> list[Any]:
        """Return the graph's outputs for `values`: Keras tensors or lazy values."""
        tensors = dict(zip(graph.inputs, values, strict=True))
        for node in graph.nodes:
            if node.outputs[0] not in tensors:
                tensors.update(zip(node.outputs, self._apply(node, tensors), strict=True))
        return [tensors[key] for key in graph.outputs]

    def _apply(self, node: Node, tensors: Mapping[int, Any]) -> list[Any]:
        inputs = [tensors[key] for key in node.inputs]
        if is_model(node.layer):
            return self.follow(read_graph(node.layer), inputs)
        operation = operation_name(node.layer)
        if operation is not None:
            positional, named = _fill((list(node.positional), dict(node.named)), tensors)
            described = describe_operation(node.layer, operation)
            made = apply_operation(described, self, positional, named)
            return list(made) if len(node.outputs) > 1 else [made]
        layer = describe_layer(node.layer)
        if (len(inputs) > 1) != (layer.kind in MERGING) or not inputs:
            raise layer.refuse(f"it combines {len(inputs)} tensors")
        self._count(node.layer, layer)
        apply = rebuild_layer(layer, self)
        try:
            made = apply(inputs if len(inputs) > 1 else inputs[0]) if apply else inputs[0]
        except (TypeError, ValueError) as error:
            raise layer.refuse(str(error)) from error
        if made is inputs[0]:
            self.left_out[id(node.layer)] = layer.name
        else:
            self.layers += 1
        return [made]

    def _count(self, layer: Any, described: ForeignLayer) -> None:
        self.uses[id(layer)] += 1
        if self.uses[id(layer)] > 1 and described.weights:
            self.copied[id(layer)] = described.name

    def layer(self, kind: str, name: str, weights: Sequence[Any] = (), /, **config: Any) -> Any:
        """Return a layer of Keras 2 whose weights `set_weights` sets."""
        made = getattr(import_keras().layers, kind)(**config, name=self._free_name(name))
        if len(weights):
            self._waiting.append((name, kind, made, list(weights)))
        return made

    def real(self, value: Any) -> Any:
        """Return the Keras tensor of a value; its layer is built once."""
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
        """Set the weights of the layers, once they are built."""
        for name, kind, rebuilt, weights in self._waiting:
            try:
                rebuilt.set_weights(weights)
            except ValueError as error:
                raise ForeignLayer(kind, name, {}, ()).refuse(str(error)) from error

    def _free_name(self, name: str) -> str:
        name = scope_name(name)
        free, number = name, 1
        while free in self._names:
            free, number = f"{name}_{number}", number + 1
        self._names.add(free)
        return free


def scope_name(name: str) -> str:
    """Return a layer's name in TensorFlow's alphabet; Keras 3 accepts any text."""
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    plain = re.sub(r"[^A-Za-z0-9_./-]+", "_", plain).strip("_")
    return plain if re.match("[A-Za-z0-9.]", plain) else f"layer_{plain}".rstrip("_")


def _fill(value: Any, tensors: Mapping[int, Any]) -> Any:
    """Return arguments with the user's tensors replaced by the rebuilt ones."""
    if id(value) in tensors:
        return tensors[id(value)]
    if isinstance(value, list | tuple):
        return type(value)(_fill(entry, tensors) for entry in value)
    if isinstance(value, dict):
        return {key: _fill(entry, tensors) for key, entry in value.items()}
    return value
