"""Run a ``.tflite`` file with LiteRT. Needs NumPy and ai-edge-litert."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from lesiontk.deploy.runner.documents import EngineDescription


class MissingRequirementError(Exception):
    """LiteRT is missing."""

    exit_code = 3


class Engine:
    """uint8 [N, S, S, 3] in, float32 [N, C] out, one image at a time."""

    def __init__(self, model: Path, threads: int) -> None:
        try:
            import ai_edge_litert
            from ai_edge_litert.interpreter import Interpreter
        except (ImportError, OSError) as error:
            raise MissingRequirementError(
                f"LiteRT ({error}): pip install ai-edge-litert"
            ) from error
        self._interpreter = Interpreter(model_path=str(model), num_threads=threads)
        self._interpreter.allocate_tensors()
        self._input = self._interpreter.get_input_details()[0]["index"]
        self._outputs = self._interpreter.get_output_details()
        self._output = self._outputs[0]["index"]
        self.description: EngineDescription = {
            "runtime": "ai-edge-litert",
            "version": getattr(ai_edge_litert, "__version__", "unknown"),
            "threads": threads,
        }

    def predict(self, images: Any) -> Any:
        """Return probabilities float32 [N, C]."""
        outputs = []
        for image in images:
            self._interpreter.set_tensor(self._input, image[np.newaxis])
            self._interpreter.invoke()
            outputs.append(self._interpreter.get_tensor(self._output)[0].copy())
        return np.stack(outputs)

    def read_signals(self) -> Any:
        """Return the last image's outputs, float32: probabilities, features and logits."""
        return [self._interpreter.get_tensor(part["index"]).ravel() for part in self._outputs]

    def close(self) -> None:
        """Release the model."""
        self._interpreter = None


def open_engine(engine: Path, bundle: object, threads: int) -> Engine:
    """Open the bundle's engine; nothing of its ``bundle.json`` is needed."""
    return Engine(engine, threads)
