"""JPEG: a picture that was compressed once more, as by a messenger."""

from __future__ import annotations

import io

import numpy as np
from numpy.random import Generator
from PIL import Image

from lesiontk.data.corruptions import Corruption, Pixels

HALVED_COLOUR = 2
"""Pillow's name of 4:2:0 subsampling."""


def compress(image: Pixels, quality: float, generator: Generator) -> Pixels:
    """Return the picture after JPEG with 4:2:0 subsampling at a quality of 1 to 95."""
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "JPEG", quality=int(quality), subsampling=HALVED_COLOUR)
    with Image.open(stream) as picture:
        return np.array(picture)


JPEG = Corruption(compress, (50, 20, 10), "JPEG quality {:g}, 4:2:0")
