"""Blur: a lens that is out of focus."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from lesiontk.data.corruptions import FIELD_MM, Corruption, Pixels

SAMPLES = 8
"""Per pixel and axis, for the coverage of the disk's edge."""


def defocus(image: Pixels, diameter_mm: float, generator: Generator) -> Pixels:
    """Return the picture with each point spread over a disk, the circle of confusion."""
    diameter = diameter_mm / FIELD_MM * min(image.shape[:2])
    blurred = cv2.filter2D(image, -1, make_disk(diameter), borderType=cv2.BORDER_REFLECT)
    return np.asarray(blurred, np.uint8)


def make_disk(diameter: float) -> NDArray[np.float32]:
    """Return float32 [K, K], K odd: the share of a disk of this diameter, in pixels, in each."""
    reach = int(np.ceil((diameter - 1) / 2)) if diameter > 1 else 0
    side = 2 * reach + 1
    fine = (np.arange(side * SAMPLES) + 0.5) / SAMPLES - side / 2
    inside = np.hypot(fine[:, None], fine[None, :]) <= max(diameter, 1) / 2
    share = inside.reshape(side, SAMPLES, side, SAMPLES).mean(axis=(1, 3))
    disk: NDArray[np.float32] = (share / share.sum()).astype(np.float32)
    return disk


BLUR = Corruption(defocus, (0.15, 0.3, 0.6), "circle of confusion of {:g} mm")
