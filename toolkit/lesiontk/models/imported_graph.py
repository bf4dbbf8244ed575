"""The call graph of a user's functional model, of Keras 2 or 3."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lesiontk.models.imported_config import refuse_model
from lesiontk.system.frameworks import import_tensorflow


@dataclass(frozen=True, slots=True)
class Node:
    """One call of a layer: input and output tensors, by identity, and its arguments."""

    layer: Any
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    positional: tuple[Any, ...]
    named: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Graph:
    """The layer calls that a model's outputs need, in topological order."""

    nodes: tuple[Node, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


def is_model(layer: Any) -> bool:
    """Return whether a layer is a functional or sequential model."""
    return hasattr(layer, "_nodes_by_depth") or hasattr(layer, "_functional")


def read_graph(model: Any) -> Graph:
    """Return the graph of a functional or sequential model. Raises `DataError` for others."""
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
    """Return the parameters of a Keras 3 operation, such as axis or slope."""
    return {key: value for key, value in vars(operation).items() if not key.startswith("_")}


def _list_needed(nodes: list[Node], outputs: tuple[int, ...]) -> set[int]:
    """Return the tensors on a path from the inputs to the outputs."""
    made = {tensor: node for node in nodes for tensor in node.outputs}
    needed, waiting = set(), list(outputs)
    while waiting:
        tensor = waiting.pop()
        if tensor not in needed:
            needed.add(tensor)
            waiting += made[tensor].inputs if tensor in made else ()
    return needed
