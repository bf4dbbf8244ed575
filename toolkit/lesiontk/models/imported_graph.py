"""The graph of a user's functional model, of either Keras: what is called with what."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lesiontk.models.imported_config import refuse_model
from lesiontk.system.frameworks import import_tensorflow


@dataclass(frozen=True, slots=True)
class Node:
    """One use of a layer: the tensors in and out, by identity, and all that it was called with."""

    layer: Any
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    positional: tuple[Any, ...]
    named: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Graph:
    """The uses of a model's layers that its outputs need, in an order in which they can run."""

    nodes: tuple[Node, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


def is_model(layer: Any) -> bool:
    """Whether a layer is a functional or sequential model."""
    return hasattr(layer, "_nodes_by_depth") or hasattr(layer, "_functional")


def read_graph(model: Any) -> Graph:
    """Return the graph of a functional or sequential model; `DataError` for any other."""
    inner = getattr(model, "_functional", None) or model  # Keras 3's Sequential wraps one
    depths = getattr(inner, "_nodes_by_depth", None)
    if depths is None:
        raise refuse_model(type(model).__name__, model.name)
    nodes = [_read_node(node) for depth in sorted(depths, reverse=True) for node in depths[depth]]
    inputs, outputs = (tuple(id(x) for x in tensors) for tensors in (inner.inputs, inner.outputs))
    needed = _list_needed(nodes, outputs)
    return Graph(
        tuple(node for node in nodes if needed.intersection(node.outputs)), inputs, outputs
    )


def _read_node(node: Any) -> Node:
    if hasattr(node, "operation"):  # Keras 3
        return Node(
            node.operation,
            tuple(id(tensor) for tensor in node.input_tensors),
            tuple(id(tensor) for tensor in node.output_tensors),
            tuple(node.arguments.args),
            {**_parameters(node.operation), **node.arguments.kwargs},
        )
    return Node(
        node.layer,
        tuple(id(tensor) for tensor in node.keras_inputs),
        tuple(id(tensor) for tensor in import_tensorflow().nest.flatten(node.outputs)),
        tuple(node.call_args),
        dict(node.call_kwargs),
    )


def _parameters(operation: Any) -> dict[str, Any]:
    """Return what an operation of Keras 3 was made with: its axis, its slope."""
    return {key: value for key, value in vars(operation).items() if not key.startswith("_")}


def _list_needed(nodes: list[Node], outputs: tuple[int, ...]) -> set[int]:
    """Return the tensors on the way from the inputs to the outputs."""
    made = {tensor: node for node in nodes for tensor in node.outputs}
    needed, waiting = set(), list(outputs)
    while waiting:
        tensor = waiting.pop()
        if tensor not in needed:
            needed.add(tensor)
            waiting += made[tensor].inputs if tensor in made else ()
    return needed
