"""Engine files without a lesiontk description: the user supplies the names of the outputs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lesiontk.document import Record
from lesiontk.errors import DataError, UsageError, suggest
from lesiontk.records import EngineSpec, Preprocessing

PIXELS: Final[Mapping[str, tuple[float, float]]] = {
    "0..255": (1.0, 0.0),
    "0..1": (1 / 255, 0.0),
    "-1..1": (2 / 255, -1.0),
}
"""Range of a float input -> scale and offset of a byte."""

RECIPE = "foreign"
"""The recipe's name in the description of a file without one."""


@dataclass(frozen=True, slots=True)
class ForeignDescription(Record):
    """The names of the outputs, in order, and the pixel range of a float input.

    Without names the outputs are numbered, which is enough for timing.
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
        """Return the missing description of the file; `outputs` is the number of its classes."""
        labels = self.labels or tuple(f"output {number}" for number in range(outputs))
        return EngineSpec(
            labels, Preprocessing(size), task, backend, "unknown", RECIPE, split_hash=""
        )


@dataclass(frozen=True, slots=True)
class ForeignInput:
    """The conversion of uint8 images [N, S, S, 3] to a graph's input: type, axis order, range.

    An integer input gets the bytes unchanged, int8 shifted by 128: its scale and zero point define
    their values. `pixels` is the range of a float input.
    """

    dtype: np.dtype[Any]
    size: int
    channels_first: bool
    pixels: str

    @classmethod
    def from_shape(
        cls, shape: tuple[Any, ...], dtype: np.dtype[Any], path: Path, pixels: str
    ) -> ForeignInput:
        """Return the input of a graph. Raises `DataError` unless it accepts square RGB images."""
        if dtype.kind != "f" and dtype not in (np.uint8, np.int8):
            raise DataError(f"{path.name} takes {dtype}; expected float, uint8 or int8.")
        for channels_first, axes in ((False, shape[1:]), (True, (*shape[2:], *shape[1:2]))):
            if len(shape) == 4 and axes[2] == 3 and isinstance(axes[0], int) and axes[0] == axes[1]:
                return cls(dtype, axes[0], channels_first, pixels)
        raise DataError(
            f"{path.name} takes {list(shape)}; expected square RGB images, [N, S, S, 3] or "
            "[N, 3, S, S] with a fixed size."
        )

    def prepare(self, images: NDArray[np.uint8]) -> NDArray[Any]:
        """Return the images in the graph's input format."""
        values: NDArray[Any] = images
        if self.dtype == np.int8:
            values = (images ^ 128).view(np.int8)
        elif self.dtype != np.uint8:
            scale, offset = PIXELS[self.pixels]
            values = (images * np.float32(scale) + np.float32(offset)).astype(self.dtype)
        return np.ascontiguousarray(values.transpose(0, 3, 1, 2)) if self.channels_first else values


def only_tensor(path: Path, tensors: Any) -> Any:
    """Return the one input or output of a graph."""
    if len(tensors) != 1:
        raise DataError(
            f"{path.name} has {len(tensors)} inputs or outputs of a kind; expected one of each."
        )
    return tensors[0]
