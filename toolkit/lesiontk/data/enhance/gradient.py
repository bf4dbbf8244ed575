"""Luminance and its gradient in integers, for the edge filters."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray


def luminance_from_rgb(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return uint8 [S, S] from uint8 [S, S, 3]: Y of ITU-R BT.601, rounded."""
    red, green, blue = (image[..., c].astype(np.int32) for c in range(3))
    return ((77 * red + 150 * green + 29 * blue + 128) >> 8).astype(np.uint8)


def measure_gradient(channel: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Return int64 [S, S], the length of the Sobel gradient in grey levels per image width.

    The image is smoothed with a sigma of S / 128, at least 0.6 pixels. The unit is per width, not
    per pixel, so that one threshold fits all sizes.
    """
    size = len(channel)
    smooth = cv2.GaussianBlur(channel, (0, 0), max(0.6, size / 128))
    dx = cv2.Sobel(smooth, cv2.CV_16S, 1, 0).astype(np.float64)
    dy = cv2.Sobel(smooth, cv2.CV_16S, 0, 1).astype(np.float64)
    return (np.sqrt(dx**2 + dy**2) * size / 8).astype(np.int64)
