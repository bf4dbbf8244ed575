"""From a picture file to the engine's input, as training did it. Needs NumPy and Pillow."""

from __future__ import annotations

import importlib
import stat
from pathlib import Path
from typing import Any

import numpy as np
from crop import crop_and_resize
from picture_decoder import MAX_BYTES, PictureError, decode_picture


def read_picture(path: Path) -> Any:
    """Return uint8 [H, W, 3] RGB, upright, as `decode_picture` says.

    Raises `PictureError` for what cannot be read; what is no regular file is not opened.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise OSError("it is not a regular file")
        with path.open("rb") as stream:
            data = stream.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        message = f"{path}: {error}; expected a picture."
        raise PictureError(message, str(path), "unreadable") from error
    return decode_picture(data, name=str(path))


def prepare_picture(image: Any, preprocessing: dict[str, Any]) -> Any:
    """Return uint8 [S, S, 3] from uint8 [H, W, 3]: crop, resize, and the filters it was trained on.

    The filters lie in the folder ``enhance`` where the engine needs any; they need OpenCV.
    """
    fitted = crop_and_resize(image, preprocessing["image_size"], preprocessing["crop_mode"])
    for module, function in preprocessing["filters"]:
        enhance = getattr(importlib.import_module("enhance." + module), function)
        fitted = enhance(np.ascontiguousarray(fitted))
    return fitted
