"""Ranges are measured once for a source graph, and each engine's file tells what became of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lesiontk.backends import BACKENDS
from lesiontk.backends.quantized_tensors import list_tensor_rows
from lesiontk.calibration.ranges import TensorRange, measure_ranges
from tests.conformance.fitted_models import FittedParent


def list_measured() -> list[str]:
    """Every calibrated target that is derived from an engine whose tensors can be read."""
    found = []
    for name, backend in BACKENDS.items():
        for precision, info in backend.info.precisions.items():
            source = info.derived_from.partition(":")[0]
            if (
                info.calibrated
                and source in BACKENDS
                and BACKENDS.get(source).info.exposes_activations
            ):
                found.append(f"{name}:{precision}")
    return found


MEASURED = list_measured()


@pytest.fixture
def ranges(target: str, parent: FittedParent) -> dict[str, TensorRange]:
    """The ranges of the target's source graph on the plan's images."""
    name, _, precision = target.partition(":")
    for needed in (name, source := BACKENDS.get(name).info.precisions[precision].derived_from):
        availability = BACKENDS.get(needed.partition(":")[0])().available()
        if not availability.available:
            pytest.skip(availability.reason)
    reader = BACKENDS.get(source.partition(":")[0])().read_tensors(parent.convert(source))
    images = (image[np.newaxis] for image in parent.plan.images)
    return measure_ranges(reader, images, parent.plan.observer)


def convert_with(
    parent: FittedParent, target: str, ranges: dict[str, TensorRange], folder: Path
) -> bytes:
    """The engine made of given ranges."""
    before = parent.plan
    parent.plan = replace(before, ranges={name: (r.low, r.high) for name, r in ranges.items()})
    try:
        return (folder / parent.convert_into(target, folder).file).read_bytes()
    finally:
        parent.plan = before


def test_there_are_such_targets() -> None:
    assert {"tflite:int8", "onnx:int8"} <= set(MEASURED)


@pytest.mark.parametrize("target", ["tflite:int8", "onnx:int8"])
def test_ranges_measured_before_give_the_very_engine(
    target: str, parent: FittedParent, ranges: dict[str, TensorRange], tmp_path: Path
) -> None:
    expected = parent.convert(target).read_bytes()
    assert convert_with(parent, target, ranges, tmp_path) == expected


@pytest.mark.parametrize("target", ["tflite:int8", "onnx:int8"])
def test_other_ranges_give_another_engine(
    target: str, parent: FittedParent, ranges: dict[str, TensorRange], tmp_path: Path
) -> None:
    """The twin of the test above."""
    wide = {name: replace(r, low=2 * r.low, high=2 * r.high) for name, r in ranges.items()}
    assert convert_with(parent, target, wide, tmp_path) != parent.convert(target).read_bytes()


@pytest.mark.parametrize("target", ["tflite:int8", "onnx:int8"])
def test_the_file_tells_scale_and_zero_point_of_every_activation(
    target: str, parent: FittedParent, ranges: dict[str, TensorRange]
) -> None:
    backend = BACKENDS.get(target.partition(":")[0])()
    tensors = backend.list_quantized_tensors(parent.convert(target))
    rows = list_tensor_rows(tensors, ranges)
    measured = [row for row in rows if row.minimum is not None]
    assert len(measured) >= 0.8 * len(rows) >= 8
    assert [row.width for row in rows] == sorted((row.width for row in rows), reverse=True)
    for row in measured:
        assert row.maximum is not None
        assert row.minimum is not None
        assert row.low - row.scale <= min(row.minimum, 0) <= max(row.maximum, 0)
        assert max(row.maximum, 0) <= row.high + row.scale  # min-max: nothing is clipped
    assert any(row.type == "uint8" and row.scale == pytest.approx(1 / 128) for row in rows)


def test_a_float_engine_has_no_quantized_activation(parent: FittedParent) -> None:
    for target in ("tflite:float32", "onnx:float32"):
        backend = BACKENDS.get(target.partition(":")[0])()
        assert backend.list_quantized_tensors(parent.convert(target)) == ()
