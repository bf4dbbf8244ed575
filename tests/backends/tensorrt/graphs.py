"""Small ONNX graphs made by hand: what TensorRT takes, and one for everything it refuses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from lesiontk.records import EngineSpec, Preprocessing

SIZE = 8
SPEC = EngineSpec(
    ("mel", "nv", "bkl"), Preprocessing(SIZE), "three_class", "tensorrt", "int8", "probe", "5" * 64
)


def make_model(
    nodes: list[onnx.NodeProto], constants: dict[str, NDArray[Any]], *, opset: int = 17
) -> onnx.ModelProto:
    """A model from ``image`` uint8 [1, 8, 8, 3] to ``probabilities`` float32 [1, 3]."""
    graph = helper.make_graph(
        nodes,
        "by_hand",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, [1, SIZE, SIZE, 3])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, [1, 3])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    model.ir_version = 8
    return model


def residual_model() -> onnx.ModelProto:
    """Two convolutions with a skip around the second, an idle Reshape, a dense layer."""
    generator = np.random.default_rng(5)

    def weights(*shape: int) -> NDArray[np.float32]:
        return generator.normal(0, 0.3, shape).astype(np.float32)

    conv = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}
    return make_model(
        [
            helper.make_node("Cast", ["image"], ["real"], "cast", to=TensorProto.FLOAT),
            helper.make_node("Mul", ["real", "scale"], ["scaled"], "scale_image"),
            helper.make_node("Add", ["scaled", "shift"], ["normal"], "shift_image"),
            helper.make_node("Transpose", ["normal"], ["planes"], "turn", perm=[0, 3, 1, 2]),
            helper.make_node("Conv", ["planes", "w1", "b1"], ["c1"], "first", **conv),
            helper.make_node("Relu", ["c1"], ["r1"], "first_relu"),
            helper.make_node("Conv", ["r1", "w2", "b2"], ["c2"], "second", **conv),
            helper.make_node("Add", ["c2", "r1"], ["sum"], "join"),
            helper.make_node("Relu", ["sum"], ["r2"], "second_relu"),
            helper.make_node("GlobalAveragePool", ["r2"], ["pool"], "pool"),
            helper.make_node("Reshape", ["pool", "same"], ["still"], "idle"),
            helper.make_node("Squeeze", ["still", "axes"], ["pooled"], "squeeze"),
            helper.make_node("MatMul", ["pooled", "w3"], ["scores"], "dense"),
            helper.make_node("Softmax", ["scores"], ["probabilities"], "softmax", axis=-1),
        ],
        {
            "scale": np.array(1 / 128, np.float32),
            "shift": np.array([-1, -1, -1], np.float32),
            "w1": weights(4, 3, 3, 3),
            "b1": weights(4),
            "w2": weights(4, 4, 3, 3),
            "b2": weights(4),
            "w3": weights(4, 3),
            "same": np.array([1, 4, 1, 1], np.int64),
            "axes": np.array([2, 3], np.int64),
        },
    )


def pictures(count: int, seed: int = 0) -> NDArray[np.uint8]:
    """Noise, uint8 [count, 8, 8, 3]."""
    shape = (count, SIZE, SIZE, 3)
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def set_constant(model: onnx.ModelProto, name: str, value: NDArray[Any]) -> None:
    """Replace a constant's value."""
    (entry,) = [entry for entry in model.graph.initializer if entry.name == name]
    entry.CopyFrom(numpy_helper.from_array(value, name))


def find_node(model: onnx.ModelProto, name: str) -> onnx.NodeProto:
    """Return the node of that name."""
    (node,) = [node for node in model.graph.node if node.name == name]
    return node


def run_model(model: onnx.ModelProto, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """What ONNX Runtime answers, rounding where the graph says and nowhere else."""
    return run_outputs(model, images)[0]


def run_outputs(model: onnx.ModelProto, images: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
    """Return every output of `run_model`'s graph."""
    return open_model(model)(images)


def open_model(
    model: onnx.ModelProto,
) -> Callable[[NDArray[np.uint8]], list[NDArray[np.float32]]]:
    """Return a function that does as `run_outputs`."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return lambda images: [
        np.asarray(values) for values in session.run(None, {"image": np.asarray(images)})
    ]
