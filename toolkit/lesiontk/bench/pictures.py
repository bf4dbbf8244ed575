"""JPEG files on which the path from file to answer is timed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SIZE = (600, 450)
"""Width and height in pixels, those of HAM10000."""
QUALITY = 95
COUNT = 8


def write_pictures(images: NDArray[np.uint8], folder: Path) -> tuple[str, ...]:
    """Write some `images`, uint8 [N, S, S, 3], enlarged, as JPEG; return the files."""
    paths = []
    for number, image in enumerate(images[:COUNT]):
        path = folder / f"{number}.jpg"
        enlarged = Image.fromarray(image).resize(SIZE, Image.Resampling.BICUBIC)
        enlarged.save(path, quality=QUALITY)
        paths.append(str(path))
    return tuple(paths)


def describe_pictures() -> str:
    """Return what the files are."""
    return f"JPEG of {SIZE[0]}x{SIZE[1]} pixels, quality {QUALITY}, in the file cache"
