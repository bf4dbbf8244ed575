"""Training pictures: more of each image than the network's centered square, or larger."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image


def make_training_picture(image: NDArray[np.uint8], side: int, aspect: float) -> NDArray[np.uint8]:
    """Return uint8 [H, W, 3], H = `side`, W = H * `aspect`: random crops are drawn from it.

    The centered H x H pixels are those of `crop_and_resize`, up to rounding of the crop. A picture
    higher than wide is transposed, as a lesion has no upright position; one narrower than `aspect`
    is mirrored at its borders.
    """
    if image.shape[0] > image.shape[1]:
        image = image.transpose(1, 0, 2)
    height, width = image.shape[:2]
    size = (round(side * aspect), side)
    wanted = height * size[0] / size[1]
    missing = max(math.ceil(wanted - width), 0)
    margins = ((0, 0), (missing // 2, missing - missing // 2), (0, 0))
    picture = Image.fromarray(np.pad(image, margins, "symmetric"))
    left = (width + missing - wanted) / 2
    box = (left, 0, left + wanted, height)
    return np.array(picture.resize(size, Image.Resampling.BILINEAR, box=box))
