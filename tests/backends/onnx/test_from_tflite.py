"""The ONNX graph of a flatbuffer computes what the flatbuffer computes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from onnx import helper

from lesiontk.backends.onnx.from_tflite import onnx_from_tflite, refuse_unknown
from lesiontk.backends.tflite.conversion import convert_keras
from lesiontk.errors import DataError
from lesiontk.system.frameworks import import_keras
from tests.backends.tflite.tiny_graphs import run_graph

SIZE = 16


def _flatten(layers: Any, x: Any) -> Any:
    return layers.Flatten()(x)


def _pool(layers: Any, x: Any) -> Any:
    return layers.Flatten()(layers.GlobalAveragePooling2D(keepdims=True)(x))


@pytest.mark.parametrize("head", [_flatten, _pool])
def test_a_dense_layer_keeps_its_bias(head: Callable[[Any, Any], Any], tmp_path: Path) -> None:
    """tf2onnx drops it where it flattens the input itself: the graph answers nearly right."""
    keras = import_keras()
    keras.utils.set_random_seed(1)
    image = keras.Input((SIZE, SIZE, 3))
    x = keras.layers.Rescaling(1 / 255)(image)
    x = keras.layers.Conv2D(4, 3, strides=4, activation="relu")(x)
    biases = keras.initializers.RandomNormal(stddev=1.0, seed=2)
    x = head(keras.layers, x)
    x = keras.layers.Dense(8, activation="relu", bias_initializer=biases)(x)
    x = keras.layers.Dense(3, activation="softmax", bias_initializer=biases)(x)
    keras.Model(image, x).save(str(tmp_path / "model.keras"))
    content = convert_keras(tmp_path / "model.keras")
    (tmp_path / "model.tflite").write_bytes(content)
    model = onnx_from_tflite(tmp_path / "model.tflite").SerializeToString()
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    pixels = np.random.default_rng(0).integers(0, 256, (1, SIZE, SIZE, 3), dtype=np.uint8)
    (answer,) = session.run(None, {session.get_inputs()[0].name: pixels})
    np.testing.assert_allclose(answer, run_graph(content, pixels), atol=1e-5)


@pytest.mark.parametrize(("operator", "known"), [("Relu", True), ("TFL_GELU", False)])
def test_an_operator_of_tflite_is_refused_by_its_name(operator: str, known: bool) -> None:
    node = helper.make_node(operator, ["image"], ["logits"])
    model = helper.make_model(helper.make_graph([node], "net", [], []))
    if known:
        refuse_unknown(model, "net.tflite")
    else:
        with pytest.raises(DataError, match=r"net\.tflite has TFL_GELU, .*a TFLite target"):
            refuse_unknown(model, "net.tflite")
