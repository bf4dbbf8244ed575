"""Reading every activation of a TFLite graph, quantized ones dequantized."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lesiontk.backends.tflite.graph import expose_activations
from lesiontk.calibration.ranges import TensorReader
from lesiontk.system.cores import count_cores
from lesiontk.system.native_output import suppress_native_output


def tensor_reader(content: bytes) -> TensorReader:
    """Return a function that returns every activation of a flatbuffer for one image, as float32.

    Quantized activations are returned as ``scale * (q - zero_point)``. XNNPACK runs, as in the
    engine itself: it keeps only the graph's outputs, so all tensors become outputs.
    """
    from ai_edge_litert.interpreter import Interpreter

    with suppress_native_output():
        interpreter = Interpreter(
            model_content=expose_activations(content), num_threads=count_cores()
        )
        interpreter.allocate_tensors()
    entry = interpreter.get_input_details()[0]["index"]
    tensors = [
        (str(detail["name"]), int(detail["index"]), detail["quantization_parameters"])
        for detail in interpreter.get_output_details()
        if detail["dtype"] == np.float32 or len(detail["quantization_parameters"]["scales"]) == 1
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
