"""Operations in a user's model (``x / 255``, ``preprocess_input``) as layers of Keras 2.

Keras 2 keeps them as TFOpLambda and SlicingOpLambda with the name of TensorFlow's function, Keras 3
as an Operation class. Both are reduced to the few that follow; no function named by the file is
called.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import EllipsisType
from typing import Any

import numpy as np

from lesiontk.models.imported_affine import Affine
from lesiontk.models.imported_functions import Maker, apply_function
from lesiontk.models.imported_layers import ForeignLayer, multiply_add

OP_LAYERS = ("TFOpLambda", "SlicingOpLambda")
"""Keras 2's layers that call a function of TensorFlow by name."""


@dataclass(frozen=True, slots=True)
class Channel:
    """One channel of a tensor, ``x[..., index]``: [N, ...]."""

    source: Any
    index: int


@dataclass(frozen=True, slots=True)
class Operation:
    """One call of an operation, and the factory of its layers."""

    layer: ForeignLayer
    make: Maker

    @property
    def name(self) -> str:
        return self.layer.name.replace(".", "_").strip("_")

    def merge(self, kind: str, *values: Any) -> Any:
        """Return the tensors merged by a layer of Keras 2."""
        return self.make.layer(kind, self.name)([self.make.real(value) for value in values])

    def layered(self, kind: str, x: Any, **config: Any) -> Any:
        """Return the output of a layer of Keras 2 for the tensor."""
        return self.make.layer(kind, self.name, **config)(self.make.real(x))


def is_tensor(value: Any) -> bool:
    """Return whether an argument is computed by the model rather than constant."""
    return isinstance(value, Affine | Channel) or hasattr(value, "node")


def operation_name(node_layer: Any) -> str | None:
    """Return the name of an operation, None for a layer."""
    kind = type(node_layer)
    if kind.__name__ in OP_LAYERS and kind.__module__.startswith("tf_keras"):
        return str(node_layer.get_config()["function"])
    return kind.__name__ if kind.__module__.startswith("keras.src.ops") else None


def describe_operation(node_layer: Any, name: str) -> ForeignLayer:
    """Return an operation as a layer without weights."""
    keras = 2 if type(node_layer).__module__.startswith("tf_keras") else 3
    return ForeignLayer(name, node_layer.name, {}, (), keras)


def check_operation(layer: ForeignLayer) -> None:
    """Raise `DataError` with the name of an unsupported operation."""
    if layer.kind not in OPERATIONS:
        known = sorted({name.split(".")[-1].lower() for name in OPERATIONS})
        raise layer.refuse(f"the operation is not known; known are {', '.join(known)}")


def apply_operation(
    layer: ForeignLayer,
    make: Maker,
    positional: Sequence[Any],
    named: Mapping[str, Any],
) -> Any:
    """Return the output of an operation for its arguments, constants included.

    Raises `DataError` with its name for an unsupported operation.
    """
    check_operation(layer)
    entry = OPERATIONS[layer.kind]
    values = dict(zip(entry.parameters, positional, strict=False))
    values |= {entry.aliases.get(key, key): value for key, value in named.items()}
    given = {key: value for key, value in values.items() if key in entry.parameters}
    try:
        return entry.apply(Operation(layer, make), **given)
    except (TypeError, ValueError) as error:
        raise layer.refuse(str(error)) from error


def _add(op: Operation, x: Any, y: Any) -> Any:
    if is_tensor(x) and is_tensor(y):
        return op.merge("Add", x, y)
    tensor, constant = (x, y) if is_tensor(x) else (y, x)
    return multiply_add(op.layer, tensor, 1.0, constant)


def _subtract(op: Operation, x: Any, y: Any) -> Any:
    if is_tensor(x) and is_tensor(y):
        return op.merge("Subtract", x, y)
    if is_tensor(x):
        return multiply_add(op.layer, x, 1.0, -np.asarray(y, np.float64))
    return multiply_add(op.layer, y, -1.0, x)


def _multiply(op: Operation, x: Any, y: Any) -> Any:
    if is_tensor(x) and is_tensor(y):
        return op.merge("Multiply", x, y)
    tensor, constant = (x, y) if is_tensor(x) else (y, x)
    return multiply_add(op.layer, tensor, constant, 0.0)


def _divide(op: Operation, x: Any, y: Any) -> Any:
    if is_tensor(y):
        raise op.layer.refuse("it divides by a tensor; expected a constant")
    return multiply_add(op.layer, x, 1 / np.asarray(y, np.float64), 0.0)


def _negative(op: Operation, x: Any) -> Any:
    return multiply_add(op.layer, x, -1.0, 0.0)


def _square(op: Operation, x: Any) -> Any:
    return op.merge("Multiply", x, x)


def _extreme(kind: str, op: Operation, x: Any, y: Any) -> Any:
    if is_tensor(x) and is_tensor(y):
        return op.merge(kind, x, y)
    tensor, constant = (x, y) if is_tensor(x) else (y, x)
    if kind == "Maximum" and np.all(np.asarray(constant) == 0):
        return op.layered("ReLU", tensor)
    raise op.layer.refuse("one argument is a constant; expected two tensors, or a maximum with 0")


def _maximum(op: Operation, x: Any, y: Any) -> Any:
    return _extreme("Maximum", op, x, y)


def _minimum(op: Operation, x: Any, y: Any) -> Any:
    return _extreme("Minimum", op, x, y)


def _clip(op: Operation, x: Any, low: Any, high: Any) -> Any:
    """Return a clip as a ReLU with a maximum."""
    low, high = float(low), float(high)
    shifted = x if low == 0 else multiply_add(op.layer, x, 1.0, -low)
    clipped = op.layered("ReLU", shifted, max_value=high - low)
    return clipped if low == 0 else multiply_add(op.layer, clipped, 1.0, low)


def _leaky_relu(op: Operation, x: Any, slope: float = 0.2) -> Any:
    return op.layered("LeakyReLU", x, alpha=float(slope))


def _gelu(op: Operation, x: Any, approximate: bool) -> Any:
    if approximate:
        raise op.layer.refuse("it is the approximate GELU; expected approximate=False")
    return op.layered("Activation", x, activation="gelu")


def _gelu_of_keras_2(op: Operation, x: Any, approximate: bool = False) -> Any:
    return _gelu(op, x, approximate)


def _softmax(op: Operation, x: Any, axis: int | None = -1) -> Any:
    return op.layered("Softmax", x, axis=-1 if axis is None else int(axis))


def _function(name: str) -> Callable[..., Any]:
    def apply(op: Operation, x: Any) -> Any:
        return apply_function(op.make, name, op.name, op.make.real(x), op.layer.keras)

    return apply


def _reduce(kind: str) -> Callable[..., Any]:
    def apply(op: Operation, x: Any, axis: Any = None, keepdims: bool = False) -> Any:
        x = op.make.real(x)
        rank = len(x.shape)
        axes = sorted(int(a) % rank for a in np.ravel(axis)) if axis is not None else None
        if rank != 4 or axes != [1, 2]:
            raise op.layer.refuse(f"it reduces the axes {axis}; expected height and width, [1, 2]")
        return op.layered(kind, x, keepdims=bool(keepdims))

    return apply


def _concatenate(op: Operation, values: Sequence[Any], axis: int = -1) -> Any:
    joined = [op.make.real(value) for value in values]
    return op.make.layer("Concatenate", op.name, axis=int(axis))(joined)


def _reshape(op: Operation, x: Any, shape: Sequence[int]) -> Any:
    return op.layered("Reshape", x, target_shape=[int(extent) for extent in shape][1:])


def _same(op: Operation, x: Any) -> Any:
    return x


def _cast(op: Operation, x: Any, dtype: Any = "float32") -> Any:
    name = getattr(dtype, "name", dtype)
    if name != "float32":
        raise op.layer.refuse(f"it casts values to {name}; expected float32")
    return x


def _get_item(op: Operation, x: Any, item: Any) -> Any:
    """Return ``x[..., ::-1]``, ``x[..., :3]`` or ``x[..., 0]``, along channels only."""
    parts = list(item) if isinstance(item, list | tuple) else [item]
    affine = x if isinstance(x, Affine) else Affine.of(x, op.name)
    rank = len(affine.tensor.shape)
    *leading, last = [_as_slice(part) for part in parts]
    ahead = [part for part in leading if not isinstance(part, EllipsisType)]
    complete = len(ahead) < len(leading) or len(parts) == rank
    if not complete or any(part != slice(None) for part in ahead):
        raise op.layer.refuse("it indexes axes other than the last; expected x[..., i]")
    if isinstance(last, slice):
        return affine.take(range(affine.channels)[last])
    if isinstance(last, int):
        return Channel(affine, range(affine.channels)[last])
    raise op.layer.refuse("expected a number or a slice of channels, such as x[..., ::-1]")


def _as_slice(part: Any) -> Any:
    """Return a Python index; Keras 2 writes a slice as a dictionary."""
    return slice(*(part[k] for k in ("start", "stop", "step"))) if isinstance(part, dict) else part


def _stack(op: Operation, values: Sequence[Any], axis: int = 0) -> Any:
    """Return channels of one tensor, stacked in another order."""
    sources = {id(value.source): value for value in values if isinstance(value, Channel)}
    same = {(value.source.tensor.node.layer.name) for value in sources.values()}
    last = bool(sources) and axis in (-1, len(next(iter(sources.values())).source.tensor.shape) - 1)
    if not last or len(same) != 1 or not all(isinstance(value, Channel) for value in values):
        raise op.layer.refuse("expected channels of one tensor, stacked on the last axis")
    return values[0].source.take([value.index for value in values])


@dataclass(frozen=True, slots=True)
class _Entry:
    """How an operation is rebuilt; `aliases` are other names of its parameters."""

    apply: Callable[..., Any]
    parameters: tuple[str, ...]
    aliases: Mapping[str, str]


def _entry(apply: Callable[..., Any], *parameters: str, **aliases: str) -> _Entry:
    return _Entry(apply, parameters, aliases)


_PAIR = ("x", "y")
_X = {"x": "x"}
_TF = {"features": "x", "value": "x", "input": "x", "logits": "x", "tensor": "x"}
_ADD, _SUBTRACT = _entry(_add, *_PAIR), _entry(_subtract, *_PAIR)
_MULTIPLY, _DIVIDE = _entry(_multiply, *_PAIR), _entry(_divide, *_PAIR)
_BIAS = _entry(_add, *_PAIR, value="x", bias="y")
_CLIP = _entry(
    _clip, "x", "low", "high", t="x", clip_value_min="low", clip_value_max="high", x_min="low",
    x_max="high",
)  # fmt: skip
_LEAKY = _entry(_leaky_relu, "x", "slope", features="x", alpha="slope", negative_slope="slope")
_SOFTMAX = _entry(_softmax, "x", "axis", logits="x")
_MEAN = ("x", "axis", "keepdims")
_GLOBAL = {
    kind: _entry(_reduce(f"Global{layer}Pooling2D"), *_MEAN, input_tensor="x")
    for kind, layer in (("mean", "Average"), ("max", "Max"))
}
_CONCATENATE = _entry(_concatenate, "values", "axis", xs="values")
_RESHAPE = _entry(_reshape, "x", "shape", tensor="x", newshape="shape")
_ITEM = _entry(_get_item, "x", "item", tensor="x", slice_spec="item", key="item")
_SAME = _entry(_same, "x", **_TF, variable="x")
_CAST = _entry(_cast, "x", "dtype")


def _functions(names: Mapping[str, str]) -> dict[str, _Entry]:
    return {own: _entry(_function(name), "x", **_TF) for own, name in names.items()}


OPERATIONS: dict[str, _Entry] = {
    # Keras 2: functions of TensorFlow.
    "__operators__.add": _ADD, "math.add": _ADD, "nn.bias_add": _BIAS,
    "math.subtract": _SUBTRACT,
    "math.multiply": _MULTIPLY,
    "math.divide": _DIVIDE, "math.truediv": _DIVIDE,
    "math.negative": _entry(_negative, "x"),
    "math.square": _entry(_square, "x"),
    "math.maximum": _entry(_maximum, *_PAIR), "math.minimum": _entry(_minimum, *_PAIR),
    "clip_by_value": _CLIP,
    "nn.leaky_relu": _LEAKY,
    "nn.gelu": _entry(_gelu_of_keras_2, "x", "approximate", features="x"),
    "nn.softmax": _SOFTMAX,
    "math.reduce_mean": _GLOBAL["mean"], "math.reduce_max": _GLOBAL["max"],
    "concat": _CONCATENATE,
    "reshape": _RESHAPE,
    "__operators__.getitem": _ITEM,
    "identity": _SAME, "stop_gradient": _SAME, "convert_to_tensor": _SAME,
    "cast": _CAST,
    **_functions({
        "nn.relu": "relu", "nn.relu6": "relu6", "nn.elu": "elu", "nn.selu": "selu",
        "nn.silu": "swish", "nn.swish": "swish", "math.sigmoid": "sigmoid", "math.tanh": "tanh",
        "nn.sigmoid": "sigmoid", "nn.tanh": "tanh", "math.softplus": "softplus",
        "nn.softplus": "softplus", "nn.softsign": "softsign",
    }),
    # Keras 3: classes of operations.
    "Add": _ADD, "Subtract": _SUBTRACT, "Multiply": _MULTIPLY,
    "Divide": _DIVIDE, "TrueDivide": _DIVIDE,
    "Negative": _entry(_negative, "x"),
    "Square": _entry(_square, "x"),
    "Maximum": _entry(_maximum, *_PAIR), "Minimum": _entry(_minimum, *_PAIR),
    "Clip": _CLIP,
    "LeakyRelu": _LEAKY,
    "Gelu": _entry(_gelu, "x", "approximate"),
    "Softmax": _SOFTMAX,
    "Mean": _GLOBAL["mean"], "Max": _GLOBAL["max"],
    "Concatenate": _CONCATENATE,
    "Reshape": _RESHAPE,
    "GetItem": _ITEM,
    "Stack": _entry(_stack, "values", "axis"),
    "StopGradient": _SAME,
    "Cast": _CAST,
    **_functions({
        "Relu": "relu", "Relu6": "relu6", "Elu": "elu", "Selu": "selu", "Silu": "swish",
        "Sigmoid": "sigmoid", "Tanh": "tanh", "Softplus": "softplus", "Softsign": "softsign",
        "HardSigmoid": "hard_sigmoid", "HardSilu": "hard_silu",
    }),
}  # fmt: skip
"""Name of an operation -> how it is rebuilt."""
