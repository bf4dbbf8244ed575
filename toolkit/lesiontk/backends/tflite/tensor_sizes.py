"""Check of the tensor sizes of a TFLite graph before anything is allocated."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from lesiontk.backends.tensor_limits import check_tensor
from lesiontk.errors import DataError

Values = Sequence[float]
WHOLE: Final = {schema.TensorType.INT32: np.int32, schema.TensorType.INT64: np.int64}


def _range(start: Values, end: Values, step: Values) -> Values:
    return [(end[0] - start[0]) / (step[0] or 1)]


MADE: Final[dict[int, tuple[tuple[int, ...], Callable[..., Values]]]] = {
    schema.BuiltinOperator.FILL: ((0,), lambda shape: shape),
    schema.BuiltinOperator.BROADCAST_TO: ((1,), lambda shape: shape),
    schema.BuiltinOperator.TILE: ((1,), lambda times: times),
    schema.BuiltinOperator.RANGE: ((0, 1, 2), _range),
}
"""Operator -> the inputs that determine the size of its output, and how."""


def check_tensor_sizes(content: bytes, path: Path) -> None:
    """Raise `DataError` for a tensor that is too large, or whose name LiteRT's Python cannot read.

    The structure is one that LiteRT has checked.

    Data-dependent sizes are unknown.
    """
    model = schema.Model.GetRootAs(content, 0)
    for number in range(model.SubgraphsLength()):
        graph = model.Subgraphs(number)
        for index in range(graph.TensorsLength()):
            tensor = graph.Tensors(index)
            shape = [tensor.Shape(axis) for axis in range(tensor.ShapeLength())]
            check_tensor(path, _name(tensor, path), shape)
        for index in range(graph.OperatorsLength()):
            operator = graph.Operators(index)
            code = model.OperatorCodes(operator.OpcodeIndex())
            kind = max(code.BuiltinCode(), code.DeprecatedBuiltinCode())
            if kind not in MADE:
                continue
            places, size = MADE[kind]
            known = [_read(model, graph, operator.Inputs(place)) for place in places]
            if all(known):
                made = graph.Tensors(operator.Outputs(0))
                check_tensor(path, _name(made, path), size(*known))


def _name(tensor: Any, path: Path) -> str:
    name = tensor.Name() or b""
    try:
        return str(name, "utf-8")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path.name} is damaged: the name {name!r} of a tensor is no text in UTF-8."
        ) from error


def _read(model: Any, graph: Any, index: int) -> list[float]:
    """Return an integer constant, or nothing if the tensor is not one."""
    tensor = graph.Tensors(index)
    buffer = model.Buffers(tensor.Buffer())
    kind = WHOLE.get(tensor.Type())
    if kind is None or not buffer.DataLength():
        return []
    return [float(value) for value in buffer.DataAsNumpy().view(kind)]
