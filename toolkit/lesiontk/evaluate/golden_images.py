"""Golden images: computed from integers, identical on every machine, for the test of any engine.

They need no data and contain what validation images may not: black, white, pure colours, hard edges
and noise, which reveal overflows, exchanged channels and rotations.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

COUNT = 16

# RGB; no two are the same with red and blue exchanged.
GROUNDS = ((228, 188, 170), (176, 128, 104), (240, 206, 180), (205, 160, 150))
SPOTS = ((92, 54, 40), (150, 60, 66), (60, 66, 88), (186, 120, 60))


def golden_images(size: int) -> NDArray[np.uint8]:
    """Return uint8 [16, size, size, 3] RGB: eight of pure form and colour, eight like lesions."""
    rows, columns = np.mgrid[:size, :size].astype(np.int64)
    images = np.empty((COUNT, size, size, 3), np.int64)
    images[0], images[1] = 0, 255
    for channel in range(3):
        images[2 + channel] = 0
        images[2 + channel, ..., channel] = 255 * (rows + 2 * columns) // (3 * size - 3)
    images[5] = np.where((rows // 4 + columns // 6) % 2, 255, 0)[..., np.newaxis]
    images[6] = np.random.default_rng(6).integers(0, 256, (size, size, 3))
    images[7] = np.stack([255 * rows // size, 255 * columns // size, 128 + 0 * rows], axis=-1)
    for number in range(8, COUNT):
        ground, spot = GROUNDS[number % 4], SPOTS[(number // 2) % 4]
        images[number] = np.array(ground) - 24 * (rows + columns)[..., np.newaxis] // (2 * size)
        for part in range(number % 3 + 1):  # discs, off the centre and of different widths
            down, across = size * (5 + 2 * part) // 12, size * (6 - part + number % 2) // 12
            radius = size * (3 + number % 4) // (12 + 6 * part)
            inside = (rows - down) ** 2 + 2 * (columns - across) ** 2 < radius**2
            images[number][inside] = np.array(spot) + 30 * part
    return np.clip(images, 0, 255).astype(np.uint8)
