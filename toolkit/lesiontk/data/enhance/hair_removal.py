"""Hair removal: dark hairs are detected by shape and inpainted."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from lesiontk.data.enhance.gradient import luminance_from_rgb

DIRECTIONS = 16  # none has a sine or cosine of 1/2, whose rounding depends on the machine
WIDTH_SHARE = 1 / 24
LENGTH_SHARE = 1 / 6
THRESHOLD = 10


def remove_hair(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return uint8 [S, S, 3] RGB without dark hairs; unchanged where there are none.

    After DullRazor (Lee, Ng, Gallagher, Coldman and McLean, Computers in Biology and Medicine
    27(6), 1997): dark, thin, long structures are replaced by their surroundings. Light hairs stay,
    and so do hairs that resizing made fainter than `THRESHOLD`. Rulers are removed, and possibly
    streaks of a lesion that are as straight as a hair.
    """
    return fill_mask(image, find_hair(luminance_from_rgb(image)))


def find_hair(luminance: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Return bool [S, S], true on dark lines: thinner than S / 24 and longer than S / 6.

    The black-hat (closing minus image) of at least `THRESHOLD` grey levels finds dark, thin
    structures; openings by lines in sixteen directions keep those that are long and straight.
    """
    size = len(luminance)
    width = max(3, round(size * WIDTH_SHARE) | 1)
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (width, width))
    thin = cv2.morphologyEx(luminance, cv2.MORPH_BLACKHAT, disc)
    long = np.zeros_like(thin)
    for number in range(DIRECTIONS):
        line = draw_line(max(5, round(size * LENGTH_SHARE) | 1), np.pi * number / DIRECTIONS)
        long = np.maximum(long, cv2.morphologyEx(thin, cv2.MORPH_OPEN, line))
    margin = np.ones((3, 3), np.uint8)
    return cv2.dilate((long >= THRESHOLD).astype(np.uint8), margin) > 0


def draw_line(length: int, angle: float) -> NDArray[np.uint8]:
    """Return uint8 [length, length], ones on a line through the centre at `angle` in radians."""
    reach = length // 2
    steps = np.arange(-reach, reach + 1)
    line = np.zeros((2 * reach + 1, 2 * reach + 1), np.uint8)
    rows, columns = (np.rint(steps * part).astype(int) for part in (np.sin(angle), np.cos(angle)))
    line[reach + rows, reach + columns] = 1
    return line


def fill_mask(image: NDArray[np.uint8], mask: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Return uint8 [S, S, 3] with the pixels of `mask` bool [S, S] painted over from its rim.

    Each round sets the masked pixels beside known ones to the mean of their known eight
    neighbours; after Oliveira, Bowen, McKenna and Chang, Fast Digital Image Inpainting (VIIP 2001).
    It uses integers, because OpenCV's inpainting rounds differently on each processor.
    """
    known = ~mask
    if not known.any():
        return image.copy()
    filled = image.astype(np.int32) * known[..., np.newaxis]
    while not known.all():
        count = sum_around(known.astype(np.int32))
        rim = ~known & (count > 0)
        total = sum_around(filled)
        filled[rim] = (2 * total[rim] + count[rim, np.newaxis]) // (2 * count[rim, np.newaxis])
        known = known | rim
    return filled.astype(np.uint8)


def sum_around(values: NDArray[np.int32]) -> NDArray[np.int32]:
    """Return the sum of the 3 x 3 values around each; zeros outside the image."""
    padded = np.pad(values, [(1, 1), (1, 1), *[(0, 0)] * (values.ndim - 2)])
    height, width = values.shape[:2]
    total = np.zeros_like(values)
    for row in range(3):
        for column in range(3):
            total += padded[row : row + height, column : column + width]
    return total
