"""The ONNX graph is the TFLite one in other words: it takes its ranges without measuring them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from lesiontk.backends import BACKENDS
from lesiontk.calibration.ranges import TensorReader, measure_ranges
from lesiontk.stages.ranges import carry_ranges
from tests.conformance.cases import each_architecture
from tests.conformance.fitted_models import FittedParent

ORIGIN, DERIVED = "tflite:float32", "onnx:float32"


@pytest.mark.parametrize("architecture", each_architecture(engines=True))
def test_carried_ranges_are_those_that_would_be_measured(
    architecture: str, fitted_parent: Callable[[str], FittedParent]
) -> None:
    parent = fitted_parent(architecture)
    pixels = parent.plan.images

    def open_tensors(target: str) -> TensorReader:
        backend = BACKENDS.get(target.partition(":")[0])()
        return backend.read_tensors(parent.convert(target))

    origin, derived = open_tensors(ORIGIN), open_tensors(DERIVED)
    images = [image[np.newaxis] for image in pixels]
    known = measure_ranges(origin, iter(images), "min_max")
    measured = measure_ranges(derived, iter(images), "min_max")
    carried = carry_ranges(known, origin, derived, pixels[:4])
    assert len(carried) >= 0.9 * len(measured)
    for name, tensor in carried.items():
        size = max(abs(measured[name].minimum), abs(measured[name].maximum))
        assert abs(tensor.low - measured[name].low) <= 2e-3 * size, name
        assert abs(tensor.high - measured[name].high) <= 2e-3 * size, name
