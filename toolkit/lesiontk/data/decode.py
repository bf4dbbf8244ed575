"""Decoding of image files to RGB pixels, with the errors of the toolkit.

The decoder itself is `picture_decoder`, which bundles contain.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lesiontk.data.picture_decoder import MAX_BYTES, MAX_PIXELS, PictureError, decode_picture
from lesiontk.errors import DataError

RgbImage = NDArray[np.uint8]


class ImageError(DataError):
    """An image that cannot be read. `name` is its name, `reason` one word for programs.

    Reasons are those of `PictureError`, and missing, unreadable and refused from the reader.
    """

    def __init__(self, message: str, name: str, reason: str) -> None:
        super().__init__(message)
        self.name = name
        self.reason = reason

    def __reduce__(self) -> tuple[type[ImageError], tuple[str, str, str]]:
        return type(self), (str(self), self.name, self.reason)


def decode_image(
    data: bytes,
    *,
    name: str,
    max_pixels: int = MAX_PIXELS,
    max_bytes: int = MAX_BYTES,
    draft_size: int | None = None,
) -> RgbImage:
    """Return the image in `data` as uint8 [H, W, 3] RGB, upright, as `decode_picture` does.

    Raises `ImageError` where that raises `PictureError`.
    """
    try:
        pixels: RgbImage = decode_picture(
            data, name=name, max_pixels=max_pixels, max_bytes=max_bytes, draft_size=draft_size
        )
    except PictureError as error:
        raise ImageError(str(error), error.name, error.reason) from error
    return pixels
