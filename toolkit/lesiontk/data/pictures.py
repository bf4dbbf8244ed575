"""An engine input from an image file of any size."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lesiontk.data.decode import decode_image
from lesiontk.data.preprocess import preprocess_image
from lesiontk.data.reader import ImageReader
from lesiontk.files.regular_file import resolve_path
from lesiontk.records import Preprocessing


def load_picture(path: Path | str, preprocessing: Preprocessing) -> NDArray[np.uint8]:
    """Return uint8 [S, S, 3] RGB, cropped, resized and enhanced as the engine was trained.

    Raises `ImageError` (a `DataError`) for a missing, broken or invalid image.
    """
    return preprocess_image(read_picture(path), preprocessing)


def read_picture(path: Path | str) -> NDArray[np.uint8]:
    """Return uint8 [H, W, 3] RGB. Raises as `load_picture`."""
    path = resolve_path(path, "image")  # a link that the user names may lead anywhere
    with ImageReader(path.parent) as reader:
        content = reader.read(path.name)
    return decode_image(content, name=path.name)
