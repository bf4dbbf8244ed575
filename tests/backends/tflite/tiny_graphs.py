"""Tiny networks as TFLite graphs."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from tests.conformance.fitted_models import FittedParent

TinyParent = Callable[[str], FittedParent]


def float_content(tiny_parent: TinyParent, name: str) -> bytes:
    return tiny_parent(name).convert("tflite:float32").read_bytes()


def run_graph(content: bytes, image: NDArray[np.generic]) -> NDArray[np.float32]:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=content)
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], image)
    interpreter.invoke()
    return np.asarray(interpreter.get_tensor(interpreter.get_output_details()[0]["index"]))
