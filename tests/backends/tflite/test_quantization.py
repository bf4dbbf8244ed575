"""Integer graphs that LiteRT loads, whatever the ranges of their activations are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from lesiontk.backends.backend import QuantizationPlan
from lesiontk.backends.tflite.conversion import convert_keras
from lesiontk.backends.tflite.graph import operator_name, read_model
from lesiontk.backends.tflite.quantization import quantize_static
from lesiontk.system.frameworks import import_keras
from tests.backends.tflite.tiny_graphs import run_graph

SIZE = 16


def build_hard_swish(bias: float) -> Any:
    """Return a network whose hard swish gets values around `bias`."""
    keras = import_keras()
    keras.utils.set_random_seed(1)
    image = keras.Input((SIZE, SIZE, 3))
    x = keras.layers.Rescaling(1 / 127.5, offset=-1)(image)
    x = keras.layers.Conv2D(8, 3, bias_initializer=keras.initializers.Constant(bias))(x)
    gate = keras.layers.Rescaling(1.0, offset=3.0)(x)
    gate = keras.layers.ReLU(6.0)(gate)
    gate = keras.layers.Rescaling(1 / 6)(gate)
    x = keras.layers.Multiply()([x, gate])
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(image, keras.layers.Dense(3, activation="softmax")(x))


@pytest.mark.parametrize("bias", [0.0, -8.0])
def test_a_hard_swish_whose_inputs_are_far_below_zero_is_loaded(
    bias: float, tmp_path: Path
) -> None:
    """All its outputs are about zero, and LiteRT refuses a scale that follows them alone."""
    build_hard_swish(bias).save(str(tmp_path / "model.keras"))
    content = convert_keras(tmp_path / "model.keras")
    model = read_model(content)
    names = [operator_name(model, operator) for operator in model.subgraphs[0].operators]
    assert "HARD_SWISH" in names
    images: NDArray[np.uint8] = np.random.default_rng(0).integers(
        0, 256, (8, SIZE, SIZE, 3), dtype=np.uint8
    )
    quantized, _ = quantize_static(content, QuantizationPlan(images, "min_max"))
    for image in images:
        np.testing.assert_allclose(
            run_graph(quantized, image[np.newaxis]),
            run_graph(content, image[np.newaxis]),
            atol=0.02,
        )
