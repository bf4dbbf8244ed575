"""Run an ``.onnx`` file with ONNX Runtime on the CPU. Needs NumPy and onnxruntime."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from lesiontk.backends.onnx.int8_kernels import exact_entries
from lesiontk.deploy.runner.documents import EngineDescription


class MissingRequirementError(Exception):
    """ONNX Runtime is missing."""

    exit_code = 3


class Engine:
    """uint8 [N, S, S, 3] in, float32 [N, C] out, one image at a time."""

    def __init__(self, model: Path, threads: int) -> None:
        # Otherwise it resolves a host of its vendor; its API offers no equivalent.
        os.environ["ORT_DISABLE_TELEMETRY"] = "1"
        try:
            import onnxruntime
        except (ImportError, OSError) as error:
            raise MissingRequirementError(
                f"ONNX Runtime ({error}): pip install onnxruntime"
            ) from error
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        for name, value in exact_entries(onnxruntime).items():
            options.add_session_config_entry(name, value)
        self._session = onnxruntime.InferenceSession(
            str(model), options, providers=["CPUExecutionProvider"]
        )
        self._input = self._session.get_inputs()[0].name
        self._last: Any = ()
        self.description: EngineDescription = {
            "runtime": "onnxruntime",
            "version": onnxruntime.__version__,
            "providers": self._session.get_providers(),
            "threads": threads,
        }

    def predict(self, images: Any) -> Any:
        """Return probabilities float32 [N, C]."""
        outputs = []
        for image in images:
            self._last = self._session.run(None, {self._input: image[np.newaxis]})
            outputs.append(self._last[0][0])
        return np.stack(outputs)

    def read_signals(self) -> Any:
        """Return the last image's outputs, float32: probabilities, features and logits."""
        return [np.asarray(values, np.float32).ravel() for values in self._last]

    def close(self) -> None:
        """Release the model."""
        self._session = None


def open_engine(engine: Path, bundle: object, threads: int) -> Engine:
    """Open the bundle's engine; nothing of its ``bundle.json`` is needed."""
    return Engine(engine, threads)
