"""Activation functions of Keras 2 and 3 as layers of Keras 2."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

DIRECT = {
    **{name: name for name in (
        "linear", "relu", "sigmoid", "tanh", "softmax", "elu", "selu", "gelu", "swish", "softplus",
        "softsign", "exponential", "mish",
    )},
    "silu": "swish",
}  # fmt: skip
"""Functions with the same definition in Keras 2 -> name there."""


class Maker(Protocol):
    """A factory of Keras 2 layers that keeps the weights to set once they are built."""

    def layer(self, kind: str, name: str, weights: Sequence[Any] = (), /, **config: Any) -> Any:
        """Return the layer, renamed if the name is taken."""

    def real(self, value: Any) -> Any:
        """Return the Keras tensor of a value that may be lazy."""


def _relu6(make: Maker, name: str, x: Any) -> Any:
    return make.layer("ReLU", name, max_value=6.0)(x)


def _leaky_relu(make: Maker, name: str, x: Any) -> Any:
    return make.layer("LeakyReLU", name, alpha=0.2)(x)


def _ramp(make: Maker, name: str, x: Any, slope: float) -> Any:
    """Return ``clip(slope x + 1/2, 0, 1)`` by a ReLU6, which every back end has."""
    x = make.layer("Rescaling", f"{name}_shift", scale=6 * slope, offset=3.0)(x)
    x = make.layer("ReLU", f"{name}_clip", max_value=6.0)(x)
    return make.layer("Rescaling", name, scale=1 / 6)(x)


def _hard_sigmoid(make: Maker, name: str, x: Any) -> Any:
    return _ramp(make, name, x, 1 / 6)


def _hard_sigmoid_of_keras_2(make: Maker, name: str, x: Any) -> Any:
    return _ramp(make, name, x, 0.2)


def _hard_silu(make: Maker, name: str, x: Any) -> Any:
    gate = _ramp(make, f"{name}_gate", x, 1 / 6)
    return make.layer("Multiply", name)([x, gate])


FUNCTIONS: dict[str, Callable[[Maker, str, Any], Any]] = {
    "relu6": _relu6,
    "leaky_relu": _leaky_relu,
    "hard_sigmoid": _hard_sigmoid,
    "hard_silu": _hard_silu,
    "hard_swish": _hard_silu,
}
"""Functions composed of Keras 2 layers, as Keras 3 defines them."""
OF_KERAS_2 = {"hard_sigmoid": _hard_sigmoid_of_keras_2}
"""Functions that Keras 2 defines differently."""
ACTIVATIONS = (*DIRECT, *FUNCTIONS)


def apply_function(make: Maker, function: str, name: str, x: Any, keras: int) -> Any:
    """Return the tensor of the function `function`, as version `keras` of Keras defines it."""
    if function in DIRECT:
        return make.layer("Activation", name, activation=DIRECT[function])(x)
    chosen = (OF_KERAS_2 if keras == 2 else {}).get(function, FUNCTIONS[function])
    return chosen(make, name, x)
