"""Colour constancy: removes the colour cast of light and camera."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

ORDER = 6
"""The Minkowski norm's p, the best on photographs according to the source below."""


def remove_colour_cast(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return uint8 [S, S, 3] RGB as if taken in neutral light: shades of grey.

    The light's colour e is estimated as the Minkowski norm (mean v^p)^(1/p) of each channel with
    p = 6, and each channel is divided by sqrt(3) times its part of e / |e| (Finlayson and Trezzi,
    Shades of Gray and Colour Constancy, CIC 2004; on dermoscopy: Barata, Celebi and Marques, IEEE
    JBHI 19(3), 2015). An image with an empty channel is returned unchanged.
    """
    powers = np.arange(256, dtype=np.float64) ** ORDER  # below 2^53: exact
    counts = np.stack([np.bincount(image[..., c].ravel(), minlength=256) for c in range(3)])
    light = (counts @ powers / counts[0].sum()) ** (1 / ORDER)
    if not light.all():
        return image.copy()
    gains = np.sqrt((light**2).mean()) / light
    table = np.clip(np.rint(np.arange(256) * gains[:, np.newaxis]), 0, 255).astype(np.uint8)
    return np.stack([table[c][image[..., c]] for c in range(3)], axis=-1)
