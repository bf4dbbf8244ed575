"""Engine files without a lesiontk description: the user supplies the names of the outputs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lesiontk.backends.backend import Engine
from lesiontk.errors import DataError, UsageError, suggest
from lesiontk.records import EngineSpec, Preprocessing

PIXELS: Final[Mapping[str, tuple[float, float]]] = {
    "0..255": (1.0, 0.0),
    "0..1": (1 / 255, 0.0),
    "-1..1": (2 / 255, -1.0),
}
"""What an input in float takes -> scale and offset of a byte."""

ONNX_TYPES: Final = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(uint8)": np.uint8,
}
RECIPE = "foreign"
"""The recipe's name in the description of a file that carries none."""


@dataclass(frozen=True, slots=True)
class ForeignDescription:
    """The names of the outputs, in their order, and the range of pixels that a float input takes.

    Without names the outputs are numbered, which suffices for timing.
    """

    labels: tuple[str, ...] = ()
    pixels: str = "0..255"

    def __post_init__(self) -> None:
        if self.pixels not in PIXELS:
            raise UsageError(
                f"--pixels is {self.pixels!r}; expected one of {', '.join(PIXELS)}."
                f"{suggest(self.pixels, PIXELS)}"
            )

    def make_spec(self, backend: str, size: int, outputs: int, task: str = "") -> EngineSpec:
        """Return the description that the file lacks; `outputs` is the number of its classes."""
        labels = self.labels or tuple(f"output {number}" for number in range(outputs))
        return EngineSpec(
            labels, Preprocessing(size), task, backend, "unknown", RECIPE, split_hash=""
        )


@dataclass(frozen=True, slots=True)
class ForeignInput:
    """How uint8 images [N, S, S, 3] become the input of a graph: its type, order of axes, range.

    An integer input gets the bytes as they are, int8 shifted by 128: its scale and zero point say
    what they stand for. `pixels` is the range of a float input.
    """

    dtype: np.dtype[Any]
    size: int
    channels_first: bool
    pixels: str

    @classmethod
    def from_shape(
        cls, shape: tuple[Any, ...], dtype: np.dtype[Any], path: Path, pixels: str
    ) -> ForeignInput:
        """Return the input of a graph; `DataError` if it takes no square RGB images."""
        if dtype.kind != "f" and dtype not in (np.uint8, np.int8):
            raise DataError(f"{path.name} takes {dtype}; expected float, uint8 or int8.")
        for channels_first, axes in ((False, shape[1:]), (True, (*shape[2:], *shape[1:2]))):
            if len(shape) == 4 and axes[2] == 3 and isinstance(axes[0], int) and axes[0] == axes[1]:
                return cls(dtype, axes[0], channels_first, pixels)
        raise DataError(
            f"{path.name} takes {list(shape)}; expected square RGB images, [N, S, S, 3] or "
            "[N, 3, S, S] of a fixed size."
        )

    def prepare(self, images: NDArray[np.uint8]) -> NDArray[Any]:
        """Return the images as the graph takes them."""
        values: NDArray[Any] = images
        if self.dtype == np.int8:
            values = (images ^ 128).view(np.int8)
        elif self.dtype != np.uint8:
            scale, offset = PIXELS[self.pixels]
            values = (images * np.float32(scale) + np.float32(offset)).astype(self.dtype)
        return np.ascontiguousarray(values.transpose(0, 3, 1, 2)) if self.channels_first else values


class ForeignTFLiteEngine(Engine):
    """Runs a ``.tflite`` file of other tools, one image at a time."""

    def __init__(self, path: Path, foreign: ForeignDescription, threads: int) -> None:
        from lesiontk.backends.tflite_backend import open_interpreter

        interpreter = open_interpreter(path, threads)
        given, returned = (
            _only(path, interpreter.get_input_details()),
            _only(path, interpreter.get_output_details()),
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


class ForeignONNXEngine(Engine):
    """Runs an ``.onnx`` file of other tools, one image at a time."""

    def __init__(self, path: Path, foreign: ForeignDescription, threads: int) -> None:
        from lesiontk.backends.onnx_backend import EXACT, open_session
        from lesiontk.backends.onnx_provider import CPU

        self._session = open_session(path, threads, CPU, {EXACT: "1"})
        given = _only(path, self._session.get_inputs())
        returned = _only(path, self._session.get_outputs())
        kinds = {
            "tensor(float)": np.float32,
            "tensor(uint8)": np.uint8,
            "tensor(float16)": np.float16,
        }
        if given.type not in kinds:
            raise DataError(f"{path.name} takes {given.type}; expected one of {', '.join(kinds)}.")
        self._input = given.name
        self._given = ForeignInput.from_shape(
            tuple(given.shape), np.dtype(ONNX_TYPES[given.type]), path, foreign.pixels
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


FOREIGN: Final = {".tflite": ForeignTFLiteEngine, ".onnx": ForeignONNXEngine}


def open_any(
    path: Path, foreign: ForeignDescription | None, *, threads: int = 1, provider: str | None = None
) -> Engine:
    """Open an engine file; where it carries no description, `foreign` takes its place.

    Raises as `open_engine`.
    """
    from lesiontk.backends import open_engine

    if foreign is None or path.suffix not in FOREIGN or carries_description(path):
        return open_engine(path, threads=threads, provider=provider)
    return FOREIGN[path.suffix](path, foreign, threads)


def carries_description(path: Path) -> bool:
    """Return whether an engine file has a lesiontk description; True for a damaged TFLite file."""
    from lesiontk.backends.onnx_file import read_description
    from lesiontk.backends.tflite_graph import extract_spec
    from lesiontk.regular_file import check_regular

    check_regular(path, "engine file")
    if path.suffix == ".onnx":
        return read_description(path) is not None
    content = path.read_bytes()
    return content[4:8] != b"TFL3" or extract_spec(content) is not None


def _only(path: Path, tensors: Any) -> Any:
    """Return the one input or output of a graph."""
    if len(tensors) != 1:
        raise DataError(
            f"{path.name} has {len(tensors)} inputs or outputs of a kind; expected one of each."
        )
    return tensors[0]


def _read_quantization(details: Mapping[str, Any]) -> tuple[float, int] | None:
    """Return scale and zero point of an integer tensor; None for one in float, or for raw bytes."""
    scale, zero = details["quantization"]
    if np.dtype(details["dtype"]).kind == "f" or not scale:
        return None
    return float(scale), int(zero)
