"""A heatmap over its image, as a small image."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

EDGE = 128
"""Height and width of an image in pixels: a dozen images fit into a report."""
OPACITY = 0.5
QUALITY = 85


def draw_overlay(pixels: NDArray[np.uint8], heatmap: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Return uint8 [S, S, 3]: the image in grey, coloured from violet (0) to yellow (1).

    `pixels` is uint8 [S, S, 3] RGB, `heatmap` [S, S] in 0..1. The colour map is viridis, which is
    perceptually uniform and safe for colour-blind readers.
    """
    from matplotlib import colormaps

    grey = np.asarray(Image.fromarray(pixels).convert("L"), dtype=np.float32)[..., np.newaxis]
    colours = 255 * colormaps["viridis"](heatmap)[..., :3]
    blended: NDArray[np.float64] = np.rint(OPACITY * colours + (1 - OPACITY) * grey)
    return blended.astype(np.uint8)


def encode_picture(pixels: NDArray[np.uint8]) -> bytes:
    """Return a JPEG of `EDGE` x `EDGE` pixels; equal pixels give equal bytes."""
    picture = Image.fromarray(np.ascontiguousarray(pixels))
    stream = io.BytesIO()
    picture.resize((EDGE, EDGE), Image.Resampling.BICUBIC).save(
        stream, "JPEG", quality=QUALITY, subsampling=0
    )
    return stream.getvalue()
