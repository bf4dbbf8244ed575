"""Grouping of a graph's operators into layers: one that computes, others that move or clip."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class GraphOperator:
    """One operator: the tensor that it writes, its kind, the tensors that it reads."""

    output: str
    kind: str
    inputs: tuple[str, ...]


def group_operators(
    operators: Sequence[GraphOperator], moving: Collection[str], ignored: Collection[str]
) -> Mapping[str, tuple[str, ...]]:
    """Return layer -> the outputs of its operators, in the graph's order.

    A layer is named after the output of the operator that computes. Operators of a `moving` kind
    (max pooling, padding, reshaping, a separate activation) belong to the layer that they read
    from, because a precision of their own has no meaning; at the graph's input they are a layer.
    Those of an `ignored` kind belong to none.
    """
    owner: dict[str, str] = {}
    groups: dict[str, list[str]] = {}
    for operator in operators:
        if operator.kind in ignored:
            continue
        read = [owner[name] for name in operator.inputs if name in owner]
        layer = read[0] if operator.kind in moving and read else operator.output
        owner[operator.output] = layer
        groups.setdefault(layer, []).append(operator.output)
    return {layer: tuple(outputs) for layer, outputs in groups.items()}


def members_of(groups: Mapping[str, Sequence[str]], layers: Collection[str]) -> frozenset[str]:
    """Return the outputs of all operators of these layers. Raises `ValueError` for others."""
    unknown = sorted(set(layers) - set(groups))
    if unknown:
        raise ValueError(f"no layer {unknown[0]!r} in the graph; it has {', '.join(groups)}")
    return frozenset(output for layer in layers for output in groups[layer])
