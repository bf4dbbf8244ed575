"""Small image encoders as ONNX files: mean colors, as feature maps, tokens or a vector."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def write_encoder(
    path: Path,
    kind: str = "maps",
    *,
    size: int = 32,
    opset: int = 18,
    channels_last: bool = False,
    dtype: int = TensorProto.FLOAT,
    other_input: bool = False,
) -> Path:
    """Write an encoder of the mean of each quarter's colors and return its path.

    ``maps`` is [N, 3, 2, 2], ``tokens`` [N, 5, 3] with the whole mean first, ``vector`` [N, 12].
    """
    shape = ["N", size, size, 3] if channels_last else ["N", 3, size, size]
    nodes, first = [], "pixels"
    if channels_last:
        nodes.append(helper.make_node("Transpose", ["pixels"], ["turned"], perm=[0, 3, 1, 2]))
        first = "turned"
    half = size // 2
    nodes.append(
        helper.make_node(
            "AveragePool", [first], ["maps"], "pool", kernel_shape=[half, half],
            strides=[half, half],
        )
    )  # fmt: skip
    constants = {
        "token_shape": np.array([0, 3, 4], np.int64),
        "whole_shape": np.array([0, 3, 1], np.int64),
        "vector_shape": np.array([0, 12], np.int64),
    }
    nodes += [
        helper.make_node("Reshape", ["maps", "token_shape"], ["columns"]),
        helper.make_node("GlobalAveragePool", ["maps"], ["whole_map"]),
        helper.make_node("Reshape", ["whole_map", "whole_shape"], ["whole"]),
        helper.make_node("Concat", ["whole", "columns"], ["rows"], axis=2),
        helper.make_node("Transpose", ["rows"], ["tokens"], perm=[0, 2, 1]),
        helper.make_node("Reshape", ["maps", "vector_shape"], ["vector"]),
    ]
    inputs = [helper.make_tensor_value_info("pixels", dtype, shape)]
    if other_input:
        inputs.append(helper.make_tensor_value_info("text", TensorProto.INT64, ["N", 7]))
    graph = helper.make_graph(
        nodes,
        "encoder",
        inputs,
        [helper.make_tensor_value_info(kind, dtype, None)],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)
    onnx.save(model, path)
    return path
