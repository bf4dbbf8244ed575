"""From a picture file to the engine's input, as training did it. Needs NumPy and Pillow."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np
from fit import fit_image
from PIL import Image, ImageChops, ImageOps


class PictureError(Exception):
    """A file that is no picture, or none that can be used."""

    exit_code = 2


def read_picture(path: Path) -> Any:
    """Return uint8 [H, W, 3] RGB, upright; transparent pixels lie on white, 16-bit grey is scaled.

    Raises `PictureError` for what cannot be read.
    """
    try:
        with Image.open(path) as opened:
            opened.load()
            inverted = opened.mode == "CMYK" and opened.format == "JPEG"
            adobe = "adobe" in opened.info
            image = ImageOps.exif_transpose(opened) or opened
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        expected = "expected a JPEG, PNG, BMP, TIFF or WebP file."
        raise PictureError(f"{path}: {error}; {expected}") from error
    if min(image.size) < 8:
        raise PictureError(f"{path}: {image.size} pixels; expected at least 8 a side.")
    if inverted and not adobe:
        image = ImageChops.invert(image)  # Pillow assumes Adobe's convention for all
    if image.mode.startswith("I"):
        grey = (np.array(image).astype(np.int32) * 255 + 32767) // 65535
        return np.repeat(grey.astype(np.uint8)[:, :, np.newaxis], 3, axis=2)
    if image.mode in ("LA", "La", "RGBA", "RGBa", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        page = Image.new("RGB", image.size, (255, 255, 255))
        page.paste(image, mask=image.getchannel("A"))
        image = page
    return np.array(image.convert("RGB"))


def prepare_picture(image: Any, preprocessing: dict[str, Any]) -> Any:
    """Return uint8 [S, S, 3] from uint8 [H, W, 3]: crop, resize, and the filters it was trained on.

    The filters lie in the folder ``enhance`` where the engine needs any; they need OpenCV.
    """
    fitted = fit_image(image, preprocessing["image_size"], preprocessing["fit"])
    for module, function in preprocessing["filters"]:
        enhance = getattr(importlib.import_module("enhance." + module), function)
        fitted = enhance(np.ascontiguousarray(fitted))
    return fitted
