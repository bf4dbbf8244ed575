"""Reading every activation of a TFLite graph, quantized ones as the real values they stand for."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lesiontk.calibration.ranges import TensorReader


def tensor_reader(content: bytes) -> TensorReader:
    """Return a function that gives every activation of a flatbuffer for one image, as float32.

    Quantized activations come as ``scale * (q - zero_point)``. LiteRT's own kernels run, for
    XNNPACK keeps no tensors.
    """
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it says that keeping all tensors takes memory
        interpreter = Interpreter(
            model_content=content,
            experimental_preserve_all_tensors=True,
            experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
        )
    interpreter.allocate_tensors()
    entry = interpreter.get_input_details()[0]["index"]
    written = {int(index) for node in interpreter._get_ops_details() for index in node["outputs"]}
    tensors = [
        (str(detail["name"]), int(detail["index"]), detail["quantization_parameters"])
        for detail in interpreter.get_tensor_details()
        if detail["index"] in written
        and (detail["dtype"] == np.float32 or len(detail["quantization_parameters"]["scales"]) == 1)
    ]

    def read(image: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
        interpreter.set_tensor(entry, image)
        interpreter.invoke()
        return {name: _real(interpreter.get_tensor(i), how) for name, i, how in tensors}

    return read


def _real(stored: NDArray[Any], parameters: dict[str, Any]) -> NDArray[np.float32]:
    if stored.dtype == np.float32:
        return stored
    values = stored.astype(np.float32) - np.float32(parameters["zero_points"][0])
    return np.asarray(values * np.float32(parameters["scales"][0]), np.float32)
