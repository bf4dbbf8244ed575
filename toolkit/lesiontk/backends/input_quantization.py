"""Folding a graph's input normalization into the scale and zero point of its uint8 input."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

TOLERANCE = 1e-4


@dataclass(frozen=True, slots=True)
class InputQuantization:
    """The real value of an input byte q is ``scale * (q - zero_point)``."""

    scale: float = 1.0
    zero_point: int = 0

    def after(
        self, operator: Literal["mul", "add"], constant: NDArray[Any]
    ) -> InputQuantization | None:
        """Return the quantization after a multiplication or addition, or None if impossible.

        The constant must be equal for all channels, and the zero point an integer in 0..255.
        """
        if constant.size == 0 or np.ptp(constant) > 0:
            return None
        value = float(constant.flat[0])
        scale = self.scale * value if operator == "mul" else self.scale
        zero_point = self.zero_point - (value / scale if operator == "add" else 0.0)
        whole = round(zero_point)
        if scale <= 0 or abs(zero_point - whole) > TOLERANCE or not 0 <= whole <= 255:
            return None
        return InputQuantization(scale, whole)

    def range(self) -> tuple[float, float]:
        """Return the real values of bytes 0 and 255."""
        return self.scale * (0 - self.zero_point), self.scale * (255 - self.zero_point)
