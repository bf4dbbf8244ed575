"""The engine's input from an image file, prepared as in training. Needs NumPy and Pillow."""

from __future__ import annotations

import importlib
import stat
from pathlib import Path
from typing import Any

import numpy as np

from lesiontk.data.crop import crop_and_resize
from lesiontk.data.picture_decoder import MAX_BYTES, PictureError, decode_picture
from lesiontk.deploy.runner.contract import Preprocessing

__all__ = ["PictureError", "decode_picture", "prepare_picture", "read_bytes", "read_picture"]


def read_bytes(path: Path) -> bytes:
    """Return the bytes of an image file, one more than `MAX_BYTES` of a larger file.

    Raises `PictureError` for a file that cannot be read; only regular files are opened.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise OSError("it is not a regular file")
        with path.open("rb") as stream:
            return stream.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        message = f"{path}: {error}; expected an image."
        raise PictureError(message, str(path), "unreadable") from error


def read_picture(path: Path) -> Any:
    """Return uint8 [H, W, 3] RGB, upright, as `decode_picture`; raises as `read_bytes`, too."""
    return decode_picture(read_bytes(path), name=str(path))


def prepare_picture(image: Any, preprocessing: Preprocessing) -> Any:
    """Return uint8 [S, S, 3] from uint8 [H, W, 3]: crop, resize and the filters of training.

    The filters are in the folder ``enhance``, if the engine needs any; they require OpenCV.
    """
    prepared = crop_and_resize(image, preprocessing.image_size, preprocessing.crop_mode)
    for module, function in preprocessing.filters:
        enhance = getattr(importlib.import_module("enhance." + module), function)
        prepared = enhance(np.ascontiguousarray(prepared))
    return prepared
