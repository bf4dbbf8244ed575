"""The one function that turns a picture of any size into an engine's input.

It is written on NumPy and Pillow alone, for the on-device runner carries a copy of it; the two are
held equal by `tests/golden/preprocess.json`. The enhancements load OpenCV, where there are any;
`tests/golden/enhance.json` holds them equal. Values are not normalised here: that is inside every
engine's graph.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lesiontk.data.enhance import enhance_image
from lesiontk.records import Preprocessing


def preprocess_image(image: NDArray[np.uint8], preprocessing: Preprocessing) -> NDArray[np.uint8]:
    """Return uint8 [S, S, 3] from uint8 [H, W, 3] RGB, with S = `preprocessing.image_size`.

    ``crop`` takes the largest centred square; where the margin is odd, the smaller part is left or
    above. ``stretch`` takes the whole picture. The square is resized with Pillow's bilinear filter,
    whose triangle widens with the reduction (antialiasing), in fixed-point arithmetic: the same
    bytes on every machine. At the square's edge the filter reads the pixels just outside it where
    the picture has them. Then come the filters of `preprocessing.enhance`, one after the other.

    Raises `ValueError` for another dtype or shape, which is a caller's bug, and `UsageError` for a
    filter that is unknown.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise ValueError(f"image is {image.dtype} {image.shape}; expected uint8 [H, W, 3]")
    height, width = image.shape[:2]
    box = (0, 0, width, height)
    if preprocessing.fit == "crop":
        side = min(height, width)
        left, top = (width - side) // 2, (height - side) // 2
        box = (left, top, left + side, top + side)
    size = (preprocessing.image_size, preprocessing.image_size)
    picture = Image.fromarray(np.ascontiguousarray(image))
    fitted = np.array(picture.resize(size, Image.Resampling.BILINEAR, box=box))
    return enhance_image(fitted, preprocessing.enhance)
