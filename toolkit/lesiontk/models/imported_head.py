"""The head of a user's classifier: the layer of the logits and their activation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lesiontk.errors import DataError

MOVING = ("Flatten", "Reshape", "Dropout", "SpatialDropout2D")
"""Layers between the logits and the output that do not change values."""
EXPECTED = "a classifier ends with a Dense layer, then softmax or sigmoid"


@dataclass(frozen=True, slots=True)
class Head:
    """A model's head: weights [F, C] and bias [C] of a softmax's logits, and their input tensor.

    `features` is a Keras tensor with F values for each image. `kind` is the kind of the user's
    outputs: softmax, sigmoid, linear (logits) or logit (one, of the second class).
    """

    features: Any
    kernel: NDArray[np.float32]
    bias: NDArray[np.float32]
    kind: str

    @property
    def outputs(self) -> int:
        return int(self.kernel.shape[1])

    def probabilities(self, outputs: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the class probabilities [N, C] of the user's outputs [N, ...]."""
        outputs = outputs.reshape(len(outputs), -1)
        if self.kind == "logit":
            outputs = np.concatenate([np.zeros_like(outputs), outputs], axis=1)
        if self.kind == "sigmoid":
            return np.concatenate([1 - outputs, outputs], axis=1)
        if self.kind in ("linear", "logit"):
            powers = np.exp(outputs - outputs.max(axis=1, keepdims=True))
            return np.asarray(powers / powers.sum(axis=1, keepdims=True))
        return outputs


def find_head(output: Any) -> Head:
    """Return the head of a Keras 2 model with this output tensor, its weights set.

    Raises `DataError` with the layer's name for a head that is not a classifier's.
    """
    tensor, activation = output, ""
    while True:
        layer = tensor.node.layer
        kind = type(layer).__name__
        function = "softmax" if kind == "Softmax" else _function(layer)
        if kind in ("Softmax", "Activation") and function in ("softmax", "sigmoid"):
            if activation:
                raise _refuse(layer, f"its output passes through a second {activation}")
            if kind == "Softmax" and layer.axis not in (-1, len(tensor.shape) - 1):
                raise _refuse(layer, f"its axis is {layer.axis}; expected the last")
            activation = function
        elif kind not in MOVING:
            break
        tensor = tensor.node.keras_inputs[0]
    dense = _read_dense(tensor)
    own = _function(layer) if dense is not None else "linear"
    if own != "linear" and activation:
        raise _refuse(layer, f"its activation is {own} and {activation} follows; expected one")
    kind = activation or own
    if dense is not None:
        features, kernel, bias = dense
    elif activation:  # the input of a softmax is logits
        features, width = tensor, int(np.prod(tensor.shape[1:]))
        kernel, bias = np.eye(width, dtype=np.float32), np.zeros(width, np.float32)
    else:
        raise _refuse(layer, EXPECTED)
    return _as_softmax(layer, Head(features, kernel, bias, kind))


def _as_softmax(layer: Any, head: Head) -> Head:
    """Return the equivalent softmax head: sigmoid(z) is the second value of softmax(0, z)."""
    if head.kind not in ("softmax", "sigmoid", "linear"):
        raise _refuse(layer, f"its activation is {head.kind}; expected softmax, sigmoid or none")
    single = head.outputs == 1
    if single != (head.kind == "sigmoid") and not (single and head.kind == "linear"):
        raise _refuse(layer, f"{head.outputs} outputs with {head.kind}; expected softmax, or one "
                      "output with sigmoid")  # fmt: skip
    if not single:
        return head
    kernel = np.concatenate([np.zeros_like(head.kernel), head.kernel], axis=1)
    bias = np.concatenate([np.zeros_like(head.bias), head.bias])
    return Head(head.features, kernel, bias, "sigmoid" if head.kind == "sigmoid" else "logit")


def _read_dense(tensor: Any) -> tuple[Any, NDArray[np.float32], NDArray[np.float32]] | None:
    """Return input, kernel [F, C] and bias of a layer that reads all features of an image.

    That is a dense layer, or a convolution whose kernel covers all positions. None for others.
    """
    layer = tensor.node.layer
    (features, *_) = tensor.node.keras_inputs or [None]
    kind = type(layer).__name__
    if kind == "Conv2D":
        covered = tuple(features.shape[1:3]) == layer.kernel_size and layer.groups == 1
        if tuple(tensor.shape[1:3]) != (1, 1) or not covered:
            return None
    elif kind != "Dense" or len(features.shape) != 2:
        return None
    kernel, *bias = layer.get_weights()
    kernel = kernel.reshape(-1, kernel.shape[-1])
    return features, kernel, bias[0] if bias else np.zeros(kernel.shape[1], np.float32)


def _function(layer: Any) -> str:
    return str(getattr(getattr(layer, "activation", None), "__name__", "linear"))


def _refuse(layer: Any, why: str) -> DataError:
    kind = type(layer).__name__
    return DataError(f"layer {layer.name!r} ({kind}) cannot be imported: {why}.")
