"""Noise reduction: removes sensor noise and JPEG artefacts, keeps edges and pigment network."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

STRENGTH = 3.0
PATCH = 3
SEARCH_SHARE = 1 / 16


def reduce_noise(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return uint8 [S, S, 3] RGB, each pixel the mean of pixels with similar surroundings.

    Non-local means (Buades, Coll and Morel, CVPR 2005) on all three channels together: patches of
    3 x 3 pixels are compared in a window of S / 16, 5 to 21 pixels.
    """
    window = int(np.clip(len(image) * SEARCH_SHARE, 5, 21)) | 1
    reduced = cv2.fastNlMeansDenoising(image, None, STRENGTH, PATCH, window)
    return np.asarray(reduced, dtype=np.uint8)
