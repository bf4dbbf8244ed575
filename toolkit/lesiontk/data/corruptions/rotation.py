"""Rotation: a dermatoscope held at another angle. A lesion has no upright position."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.random import Generator

from lesiontk.data.corruptions import Corruption, Pixels


def rotate(image: Pixels, degrees: float, generator: Generator) -> Pixels:
    """Return the picture turned about its center by `degrees`, in either direction.

    Outside, the picture is mirrored.
    """
    height, width = image.shape[:2]
    angle = degrees if generator.random() < 0.5 else -degrees
    turn = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), angle, 1.0)
    turned = cv2.warpAffine(
        image, turn, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT
    )
    return np.asarray(turned, np.uint8)


ROTATION = Corruption(rotate, (15, 45, 90), "turned by ±{:g}°")
