"""Hair: dark terminal hairs that lie across the field of view."""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.random import Generator

from lesiontk.data.corruptions import FIELD_MM, Corruption, Pixels

WIDTH_MM = 0.08
"""Of a terminal hair: 0.06 to 0.1 mm."""
SHADE = (48.0, 36.0, 30.0)
OPACITY = 0.9
POINTS = 24
FINENESS = 10
"""The fewest pixels of a hair's width while it is drawn."""
LARGEST_SCALE = 16
"""Of the drawing, whose memory a tiny or long picture would otherwise let grow without bound."""


def add_hair(image: Pixels, count: float, generator: Generator) -> Pixels:
    """Return the picture under `count` curved hairs; a larger count adds to those of a smaller."""
    height, width = image.shape[:2]
    shorter = min(height, width)
    thickness = WIDTH_MM / FIELD_MM * shorter
    scale = min(LARGEST_SCALE, max(1, math.ceil(FINENESS / thickness)))
    drawn = np.zeros((height * scale, width * scale), np.uint8)
    along = np.linspace(0.0, 1.0, POINTS)
    for _ in range(int(count)):
        start = generator.uniform((0.0, 0.0), (width, height))
        heading = generator.uniform(0, 2 * np.pi) + generator.uniform(-1.2, 1.2) * along
        step = generator.uniform(0.4, 1.2) * shorter / POINTS
        path = start + np.cumsum(step * np.stack((np.cos(heading), np.sin(heading)), 1), axis=0)
        points = np.rint(path * scale).astype(np.int32)
        cv2.polylines(drawn, [points], False, 255, max(1, round(thickness * scale)), cv2.LINE_8)
    if scale > 1:
        drawn = cv2.resize(drawn, (width, height), interpolation=cv2.INTER_AREA)
    share = (OPACITY / 255.0 * drawn.astype(np.float64))[..., np.newaxis]
    covered = np.rint(image * (1 - share) + np.array(SHADE) * share)
    return covered.astype(np.uint8)


HAIR = Corruption(add_hair, (5, 15, 40), f"{{:g}} hairs of {WIDTH_MM:g} mm")
