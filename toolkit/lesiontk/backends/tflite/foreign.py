"""Engines from ``.tflite`` files of other tools."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lesiontk.backends.foreign import ForeignDescription, ForeignInput, only_tensor
from lesiontk.backends.foreign_engine import ForeignEngine
from lesiontk.backends.tflite.backend import open_interpreter


class ForeignTFLiteEngine(ForeignEngine):
    """An engine that runs a ``.tflite`` file of other tools, one image at a time."""

    def __init__(self, path: Path, foreign: ForeignDescription, threads: int) -> None:
        interpreter = open_interpreter(path, threads)
        given, returned = (
            only_tensor(path, interpreter.get_input_details()),
            only_tensor(path, interpreter.get_output_details()),
        )
        self._input, self._output = given["index"], returned["index"]
        self._given = ForeignInput.from_shape(
            tuple(map(int, given["shape"])),
            np.dtype(given["dtype"]),
            path,
            foreign.pixels,
        )
        self._returned = _read_quantization(returned)
        self._interpreter = interpreter
        outputs = int(returned["shape"][-1])
        super().__init__(foreign.make_spec("tflite", self._given.size, outputs))

    def _infer(self, images: NDArray[np.uint8]) -> NDArray[Any]:
        outputs = []
        for row in range(len(images)):
            self._interpreter.set_tensor(self._input, self._given.prepare(images[row : row + 1]))
            self._interpreter.invoke()
            values = self._interpreter.get_tensor(self._output)[0].astype(np.float32)
            if self._returned:
                values = (values - self._returned[1]) * np.float32(self._returned[0])
            outputs.append(values)
        return np.stack(outputs)

    def close(self) -> None:
        self._interpreter = None


def _read_quantization(details: Mapping[str, Any]) -> tuple[float, int] | None:
    """Return scale and zero point of an integer tensor; None for float or raw bytes."""
    scale, zero = details["quantization"]
    if np.dtype(details["dtype"]).kind == "f" or not scale:
        return None
    return float(scale), int(zero)
