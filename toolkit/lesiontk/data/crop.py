"""Crop and resize for training, evaluation and devices.

Bundles contain this file: it needs only NumPy and Pillow and runs on Python 3.8 or later.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image


def crop_and_resize(image: Any, image_size: int, crop_mode: str) -> Any:
    """Return uint8 [S, S, 3] from uint8 [H, W, 3] RGB, with S = `image_size`.

    ``crop`` takes the largest centred square; the smaller part of an odd margin is left or above.
    ``stretch`` takes the whole image. The square is resized with Pillow's bilinear filter, which is
    antialiased and uses fixed-point arithmetic: the same bytes on every machine. At the square's
    edge the filter includes the image's pixels just outside it, if any.

    Raises `ValueError` for another dtype, shape or `crop_mode`.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise ValueError(f"image is {image.dtype} {image.shape}; expected uint8 [H, W, 3]")
    height, width = image.shape[:2]
    box = (0, 0, width, height)
    if crop_mode == "crop":
        side = min(height, width)
        left, top = (width - side) // 2, (height - side) // 2
        box = (left, top, left + side, top + side)
    elif crop_mode != "stretch":
        raise ValueError(f"crop_mode is {crop_mode!r}; expected 'crop' or 'stretch'")
    left, top, right, bottom = box
    picture = Image.fromarray(np.ascontiguousarray(image))
    # Columns before rows in two calls, as Pillow 12 and earlier do in one: Pillow 13 starts with
    # the rows of a tall image, and rounds differently.
    narrow = picture.resize(
        (image_size, height), Image.Resampling.BILINEAR, box=(left, 0, right, height)
    )
    return np.array(
        narrow.resize(
            (image_size, image_size),
            Image.Resampling.BILINEAR,
            box=(0, top, image_size, bottom),
        )
    )
