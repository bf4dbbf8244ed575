"""From Keras to a flatbuffer: the same network as by the converter's own way, sooner."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lesiontk.backends.tflite.conversion import convert_keras, freeze
from lesiontk.backends.tflite.graph import operator_name, read_model
from lesiontk.errors import DataError
from lesiontk.models import ARCHITECTURES, efficientnet_lite
from lesiontk.models.architecture import build_model
from lesiontk.system.frameworks import import_keras, import_tensorflow
from tests.backends.tflite.tiny_graphs import TinyParent, float_content, run_graph

SIZE = 64


def convert_plainly(model: Any) -> bytes:
    """Return what TensorFlow's converter makes of a Keras model."""
    tf = import_tensorflow()
    serve = tf.function(
        lambda image: model(tf.cast(image, tf.float32), training=False),
        input_signature=[tf.TensorSpec([1, *model.input_shape[1:]], tf.uint8)],
    )
    return bytes(
        tf.lite.TFLiteConverter.from_concrete_functions(
            [serve.get_concrete_function()], model
        ).convert()
    )


def list_weights(content: bytes) -> list[tuple[str, list[bytes | None]]]:
    """Return each operator's name and its constant inputs, in an order of their own."""
    model = read_model(content)
    graph = model.subgraphs[0]

    def values(index: int) -> bytes | None:
        data = model.buffers[graph.tensors[index].buffer].data
        return None if data is None else bytes(data)

    found = [(operator_name(model, o), [values(i) for i in o.inputs]) for o in graph.operators]
    return sorted(found, key=str)


@pytest.mark.filterwarnings("ignore")  # the converter's own deprecations
@pytest.mark.parametrize(
    ("name", "stages"),
    [
        pytest.param("cnn", 7, id="cnn"),
        pytest.param("efficientnet_lite0", 2, id="shallow efficientnet_lite0"),
        pytest.param("efficientnet_lite0", 7, id="efficientnet_lite0", marks=pytest.mark.slow),
    ],
)
def test_it_is_what_the_plain_way_gives(
    name: str, stages: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(efficientnet_lite, "STAGES", efficientnet_lite.STAGES[:stages])
    model = build_model(ARCHITECTURES.get(name), image_size=SIZE, classes=3)
    model.save(str(tmp_path / "model.keras"))
    ours, theirs = convert_keras(tmp_path / "model.keras"), convert_plainly(model)
    assert list_weights(ours) == list_weights(theirs)
    image = np.random.default_rng(0).integers(0, 256, (1, SIZE, SIZE, 3), dtype=np.uint8)
    np.testing.assert_array_equal(run_graph(ours, image), run_graph(theirs, image))


def test_runtimes_find_its_ends_by_name(tiny_parent: TinyParent) -> None:
    from ai_edge_litert.interpreter import Interpreter

    content = float_content(tiny_parent, "cnn")
    interpreter = Interpreter(model_content=content)
    shape = interpreter.get_input_details()[0]["shape"]
    image = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    runner = interpreter.get_signature_runner("serving_default")
    np.testing.assert_array_equal(runner(image=image)["probabilities"], run_graph(content, image))


def trace(call: Any) -> Any:
    tf = import_tensorflow()
    return tf.function(
        call, input_signature=[tf.TensorSpec([1, 4], tf.float32)]
    ).get_concrete_function()


def test_a_captured_tensor_becomes_a_constant() -> None:
    tf = import_tensorflow()
    shift = tf.constant([[1.0, 2.0, 3.0, 4.0]])
    scale = tf.Variable(2.0)
    kinds = [node.op for node in freeze(trace(lambda x: x * scale + shift)).node]
    assert sorted(kinds) == ["AddV2", "Const", "Const", "Identity", "Mul", "Placeholder"]


def test_a_variable_that_is_written_is_refused() -> None:
    tf = import_tensorflow()
    count = tf.Variable(0.0)
    with pytest.raises(
        DataError,
        match=r"AssignAddVariableOp .* uses a variable for more than "
        r"reading",
    ):
        freeze(trace(lambda x: x + count.assign_add(1.0)))


def test_a_function_of_its_own_is_refused() -> None:
    layers = import_keras().layers
    dense = layers.Dense(2)
    inner = import_tensorflow().function(lambda x: dense(x))
    dense.build((1, 4))
    with pytest.raises(DataError, match="calls the function"):
        freeze(trace(lambda x: inner(x)))
