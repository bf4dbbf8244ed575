"""Crop and resize give the same bytes with every Pillow: columns first, then rows, in 22 bits."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from lesiontk.data.crop import crop_and_resize

BITS = 22


def make_weights(size: int, start: int, end: int, out: int) -> NDArray[np.int64]:
    """Return the weights [out, size] of an antialiased triangle, as fixed-point numbers."""
    scale = (end - start) / out
    width = max(scale, 1.0)
    weights = np.zeros((out, size), np.int64)
    for row in range(out):
        centre = start + (row + 0.5) * scale
        first, last = max(0, int(centre - width + 0.5)), min(size, int(centre + width + 0.5))
        part = np.maximum(0, 1 - np.abs((np.arange(first, last) - centre + 0.5) / width))
        weights[row, first:last] = (part / part.sum() * (1 << BITS) + 0.5).astype(np.int64)
    return weights


def reduce_image(image: NDArray[np.uint8], size: int, box: tuple[int, int, int, int]) -> object:
    left, top, right, bottom = box
    height, width = image.shape[:2]

    def apply(weights: NDArray[np.int64], pixels: NDArray[np.int64], axis: str) -> object:
        return (np.einsum(axis, weights, pixels) + (1 << (BITS - 1))) >> BITS

    columns = apply(make_weights(width, left, right, size), image.astype(np.int64), "ox,yxc->yoc")
    rows = apply(make_weights(height, top, bottom, size), np.asarray(columns), "oy,yxc->oxc")
    return np.asarray(rows).astype(np.uint8)


@pytest.mark.parametrize(
    ("height", "width"), [(150, 113), (200, 100), (400, 30), (97, 160), (128, 128), (31, 8)]
)
@pytest.mark.parametrize("size", [24, 96, 128])
@pytest.mark.parametrize("mode", ["crop", "stretch"])
def test_it_is_the_fixed_point_reduction(height: int, width: int, size: int, mode: str) -> None:
    image = np.random.default_rng(height).integers(0, 256, (height, width, 3), np.uint8)
    side = min(height, width)
    left, top = (width - side) // 2, (height - side) // 2
    box = (left, top, left + side, top + side) if mode == "crop" else (0, 0, width, height)
    assert (crop_and_resize(image, size, mode) == reduce_image(image, size, box)).all()
