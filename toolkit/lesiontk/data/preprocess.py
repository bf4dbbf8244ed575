"""The preprocessing of an image of any size to an engine's input.

A bundle contains its files, `crop.py` and the filters of `enhance`; `tests/golden/preprocess.json`
and `enhance.json` contain the expected bytes. Normalization of the values is part of every engine's
graph.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lesiontk.data.crop import crop_and_resize
from lesiontk.data.enhance import enhance_image
from lesiontk.records import Preprocessing


def preprocess_image(image: NDArray[np.uint8], preprocessing: Preprocessing) -> NDArray[np.uint8]:
    """Return uint8 [S, S, 3] from uint8 [H, W, 3] RGB, with S = `preprocessing.image_size`.

    Crop and resize as `crop_and_resize` does, then apply the filters of `preprocessing.enhance` in
    order. Raises `ValueError` for another dtype or shape, which is a caller's bug, and `UsageError`
    for an unknown filter.
    """
    resized = crop_and_resize(image, preprocessing.image_size, preprocessing.crop_mode)
    return enhance_image(resized, preprocessing.enhance)
