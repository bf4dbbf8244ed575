"""The quantized activations of an engine, with the ranges seen in calibration."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lesiontk.calibration.ranges import TensorRange
from lesiontk.document import Record, read_table, write_table

FILE = "tensors.csv"
STORED = ("int8", "uint8", "int16")
"""The types that activations are stored in."""


@dataclass(frozen=True, slots=True)
class QuantizedTensor:
    """One activation: the real value of a stored q is ``scale * (q - zero_point)``.

    `type` is the stored type, such as ``int8``; `tensor` the name in the source graph.
    """

    tensor: str
    type: str
    scale: float
    zero_point: int

    def range(self) -> tuple[float, float]:
        """The minimum and maximum real value of the type."""
        limits = np.iinfo(self.type)
        low, high = limits.min - self.zero_point, limits.max - self.zero_point
        return self.scale * low, self.scale * high


@dataclass(frozen=True, slots=True)
class TensorRow(Record):
    """A quantized activation with its representable range, `low` to `high`, and its observed one.

    `minimum` and `maximum` are over the calibration images, None for a tensor that was not measured
    (the input, whose range is that of its bytes).
    """

    tensor: str
    type: str
    minimum: float | None
    maximum: float | None
    low: float
    high: float
    scale: float
    zero_point: int

    @property
    def width(self) -> float:
        """The width of the representable range."""
        return self.high - self.low


def list_tensor_rows(
    tensors: Iterable[QuantizedTensor], measured: Mapping[str, TensorRange]
) -> list[TensorRow]:
    """Return a row for each tensor, the widest first."""
    rows = []
    for tensor in tensors:
        seen = measured.get(tensor.tensor)
        rows.append(
            TensorRow(
                tensor.tensor,
                tensor.type,
                None if seen is None else seen.minimum,
                None if seen is None else seen.maximum,
                *tensor.range(),
                tensor.scale,
                tensor.zero_point,
            )
        )
    return sorted(rows, key=lambda row: (-row.width, row.tensor))


def write_tensor_rows(path: Path, rows: Iterable[TensorRow]) -> None:
    """Write the rows as CSV; cells that were not measured are empty."""
    write_table(path, TensorRow, rows)


def read_tensor_rows(path: Path) -> tuple[TensorRow, ...]:
    """Return the rows written by `write_tensor_rows`."""
    return tuple(read_table(path, TensorRow))
