"""Limit on an engine's tensor sizes: a small file may describe a tensor of any size."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path

from lesiontk.errors import DataError

LARGEST_TENSOR = 2**28
"""Values of a tensor, 1 GiB in float32. VGG16's largest for an image of 512 pixels has 2**24."""


def check_tensor(path: Path, name: str, shape: Iterable[float]) -> None:
    """Raise `DataError` if a tensor of this shape is too large for a classifier."""
    values = math.prod(max(1, abs(int(size))) for size in shape)
    if values > LARGEST_TENSOR:
        raise DataError(
            f"{path.name} has a tensor of {values:.3g} values, {name}; expected at most "
            f"{LARGEST_TENSOR}, which is enough for an image classifier."
        )
