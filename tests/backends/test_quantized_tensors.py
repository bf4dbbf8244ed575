"""Rows of quantized activations: ranges of every stored type, and a file that loses nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from lesiontk.backends.quantized_tensors import (
    QuantizedTensor,
    list_tensor_rows,
    read_tensor_rows,
    write_tensor_rows,
)
from lesiontk.calibration.ranges import TensorRange, read_ranges, write_ranges


@pytest.mark.parametrize(
    ("kind", "zero_point", "low", "high"),
    [
        ("int8", -128, 0.0, 127.5),
        ("int8", 0, -64.0, 63.5),
        ("uint8", 128, -64.0, 63.5),
        ("uint8", 0, 0.0, 127.5),
        ("int16", 0, -16384.0, 16383.5),
    ],
)
def test_what_a_type_can_hold(kind: str, zero_point: int, low: float, high: float) -> None:
    assert QuantizedTensor("a", kind, 0.5, zero_point).range() == (low, high)


TENSORS = (
    QuantizedTensor("narrow", "int8", 0.01, 0),
    QuantizedTensor("wide;name, with a comma", "uint8", 0.3, 7),
)
MEASURED = {"narrow": TensorRange(-1.1, 0.1 + 0.2, -1.28, 1.27)}


def test_the_widest_comes_first_and_what_was_not_measured_stays_open() -> None:
    rows = list_tensor_rows(TENSORS, MEASURED)
    assert [row.tensor for row in rows] == ["wide;name, with a comma", "narrow"]
    assert (rows[0].minimum, rows[0].maximum) == (None, None)
    assert (rows[1].minimum, rows[1].maximum) == (-1.1, 0.1 + 0.2)


def test_rows_survive_their_file(tmp_path: Path) -> None:
    rows = list_tensor_rows(TENSORS, MEASURED)
    write_tensor_rows(tmp_path / "tensors.csv", rows)
    assert list(read_tensor_rows(tmp_path / "tensors.csv")) == rows


def test_ranges_survive_their_file_in_their_order(tmp_path: Path) -> None:
    ranges = {"z": TensorRange(1 / 3, 2 / 3, 0.0, 2 / 3), "a,b": TensorRange(-1.0, 1e-9, -1.0, 0.0)}
    write_ranges(tmp_path / "ranges.csv", ranges)
    received = read_ranges(tmp_path / "ranges.csv")
    assert received == ranges
    assert list(received) == ["z", "a,b"]
