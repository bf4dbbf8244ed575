"""Perceptual hashes and pairs of images that look alike. Plain NumPy."""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray
from PIL import Image

HASH_SIDE = 16
BITS = HASH_SIDE * HASH_SIDE


def hash_pixels(image: NDArray[np.uint8]) -> str:
    """Return the SHA-256 of an image's shape and pixels."""
    return hashlib.sha256(repr(image.shape).encode() + image.tobytes()).hexdigest()


def hash_difference(image: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """Return the 256-bit difference hash of uint8 [H, W, 3] as uint64 [4].

    Each bit says whether brightness falls from one cell of a 17 x 16 thumbnail to the next
    (N. Krawetz, "Kind of like that", 2013). Small changes of size, light or compression flip few.
    """
    grey = Image.fromarray(image).convert("L")
    cells = np.asarray(grey.resize((HASH_SIDE + 1, HASH_SIDE), Image.Resampling.BOX))
    bits = cells[:, 1:] < cells[:, :-1]
    return np.packbits(bits).view(">u8").astype(np.uint64)


def find_near_pairs(hashes: NDArray[np.uint64], max_distance: int) -> list[tuple[int, int, int]]:
    """Return (i, j, bits that differ) for i < j with at most `max_distance` of 256; nearest first.

    `hashes` is uint64 [N, 4]. All pairs are compared, a block of rows at a time.
    """
    pairs: list[tuple[int, int, int]] = []
    block = 256
    for start in range(0, len(hashes), block):
        rows = hashes[start : start + block]
        distance = np.zeros((len(rows), len(hashes) - start), np.uint16)
        for word in range(hashes.shape[1]):
            distance += np.bitwise_count(rows[:, None, word] ^ hashes[None, start:, word])
        near_rows, near_columns = np.nonzero(distance <= max_distance)
        pairs += [
            (start + int(i), start + int(j), int(distance[i, j]))
            for i, j in zip(near_rows, near_columns, strict=True)
            if i < j
        ]
    return sorted(pairs, key=lambda pair: (pair[2], pair[0], pair[1]))
