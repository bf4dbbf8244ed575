"""The constants of an ONNX graph, and the tensors of its input normalization."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from lesiontk.backends.onnx.graph import INPUT

NORMALIZING: Final = ("Cast", "Mul", "Add", "Sub", "Div", "Transpose", "Pad")


def constants_of(graph: onnx.GraphProto) -> dict[str, NDArray[Any]]:
    """Return name -> value of the graph's constants."""
    return {entry.name: numpy_helper.to_array(entry) for entry in graph.initializer}


def normalized_tensors(graph: onnx.GraphProto) -> set[str]:
    """Return the tensors between the input and the first layer.

    They depend only on the input and constants: casts, scales, offsets, a change of layout.
    """
    constants = {entry.name for entry in graph.initializer}
    found = {INPUT}
    for node in graph.node:
        varying = [name for name in node.input if name and name not in constants]
        if node.op_type in NORMALIZING and varying and set(varying) <= found:
            found.update(node.output)
    return found


def replace_constant(
    graph: onnx.GraphProto, name: str, value: NDArray[Any], *, like: str | None = None
) -> str:
    """Return a new constant called `name`, numbered if the name is taken.

    With `like` it is inserted after that constant, so that files keep their order.
    """
    taken = {entry.name for entry in graph.initializer}
    free, number = name, 1
    while free in taken:
        free, number = f"{name}_{number}", number + 1
    entry = numpy_helper.from_array(np.asarray(value, order="C"), free)
    places = [i for i, e in enumerate(graph.initializer) if e.name == like]
    if places:
        graph.initializer.insert(places[0] + 1, entry)
    else:
        graph.initializer.append(entry)
    return free


def drop_unused_constants(graph: onnx.GraphProto) -> None:
    """Remove constants that no node reads, in place."""
    read = {name for node in graph.node for name in node.input}
    kept = [entry for entry in graph.initializer if entry.name in read]
    del graph.initializer[:]
    graph.initializer.extend(kept)
