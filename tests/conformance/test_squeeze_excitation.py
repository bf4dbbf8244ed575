"""Networks with swish and squeeze-and-excitation get a TensorRT int8 graph.

TensorRT has no integer Sigmoid and Mul: they outnumber the convolutions, which are all int8.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lesiontk.backends import BACKENDS
from lesiontk.backends.reference_outputs import run_engine
from lesiontk.models.architecture import Architecture, Normalization
from lesiontk.system.frameworks import import_keras
from tests.conformance.fitted_models import FittedParent


def excited(x: Any) -> Any:
    layers = import_keras().layers
    for width in (16, 32):
        x = layers.Conv2D(width, 3, strides=2, padding="same", activation="swish")(x)
        gate = layers.Reshape((1, 1, width))(layers.GlobalAveragePooling2D()(x))
        gate = layers.Conv2D(8, 1, activation="swish")(gate)
        gate = layers.Conv2D(width, 1, activation="sigmoid")(gate)
        x = layers.Multiply()([x, gate])
    return layers.GlobalAveragePooling2D()(x)


@pytest.fixture(scope="module")
def parent(tmp_path_factory: pytest.TempPathFactory) -> FittedParent:
    architecture = Architecture("excited", 32, Normalization(1 / 128, (-1.0,) * 3), excited)
    return FittedParent(architecture, tmp_path_factory.mktemp("excited"))


def test_operators_that_tensorrt_cannot_quantize_do_not_refuse_the_graph(
    parent: FittedParent,
) -> None:
    outputs = run_engine(parent.convert("tensorrt:int8"), parent.pictures, 1).outputs
    verification = parent.verify("tensorrt:int8", outputs)
    assert verification.passed, verification.describe_failures()
    operators = BACKENDS.get("tensorrt")().inspect(parent.convert("tensorrt:int8")).operators
    assert operators["float32"] > operators["int8"]


def test_a_graph_whose_convolutions_are_float_is_still_refused(parent: FittedParent) -> None:
    """The twin: the float graph, said to be int8."""
    file: Path = parent.convert("tensorrt:float32")
    backend = BACKENDS.get("tensorrt")()
    assert backend.inspect(file).integer_operator_share == 0.0
    assert len(backend.list_unexplained(file, "int8")) >= 7
