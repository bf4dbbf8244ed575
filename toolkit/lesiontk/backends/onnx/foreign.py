"""Engines from ``.onnx`` files of other tools."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lesiontk.backends.foreign import ForeignDescription, ForeignInput, only_tensor
from lesiontk.backends.foreign_engine import ForeignEngine
from lesiontk.backends.onnx.backend import open_session
from lesiontk.backends.onnx.int8_kernels import exact_entries
from lesiontk.backends.onnx.provider import CPU
from lesiontk.errors import DataError
from lesiontk.system.frameworks import import_onnxruntime

TYPES: Final = {
    "tensor(float)": np.float32,
    "tensor(uint8)": np.uint8,
    "tensor(float16)": np.float16,
}


class ForeignONNXEngine(ForeignEngine):
    """An engine that runs an ``.onnx`` file of other tools, one image at a time."""

    def __init__(self, path: Path, foreign: ForeignDescription, threads: int) -> None:
        self._session = open_session(path, threads, CPU, exact_entries(import_onnxruntime()))
        given = only_tensor(path, self._session.get_inputs())
        returned = only_tensor(path, self._session.get_outputs())
        if given.type not in TYPES:
            raise DataError(f"{path.name} takes {given.type}; expected one of {', '.join(TYPES)}.")
        self._input = given.name
        self._given = ForeignInput.from_shape(
            tuple(given.shape), np.dtype(TYPES[given.type]), path, foreign.pixels
        )
        outputs = returned.shape[-1] if returned.shape else 0
        if not isinstance(outputs, int):
            raise DataError(f"{path.name} returns {returned.shape}; expected [N, C], C fixed.")
        super().__init__(foreign.make_spec("onnx", self._given.size, outputs))

    def _infer(self, images: NDArray[np.uint8]) -> NDArray[Any]:
        outputs = []
        for row in range(len(images)):
            given = self._given.prepare(images[row : row + 1])
            outputs.append(self._session.run(None, {self._input: given})[0])
        return np.concatenate(outputs)

    def close(self) -> None:
        self._session = None
