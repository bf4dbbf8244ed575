"""Write `preprocess.json`, by which every implementation of crop and resize is held equal.

Run with lesiontk importable: ``python tests/golden/make_preprocess.py``. The input pictures are
made by `make_input`, so that an implementation in another language needs no file for them.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lesiontk.data.preprocess import preprocess_image
from lesiontk.records import Preprocessing

GOLDEN = Path(__file__).with_name("preprocess.json")
# (height, width, image size, fit)
CASES = (
    (24, 32, 8, "crop"),
    (24, 32, 24, "crop"),  # a crop alone
    (16, 16, 16, "stretch"),  # the picture itself
    (25, 32, 12, "crop"),  # an odd margin
    (33, 24, 10, "crop"),
    (10, 13, 23, "crop"),  # enlarged
    (37, 61, 16, "stretch"),
    (9, 90, 12, "stretch"),
    (240, 320, 96, "crop"),
    (240, 320, 192, "crop"),
    (450, 600, 224, "crop"),
    (450, 600, 128, "stretch"),
)


def make_input(height: int, width: int) -> NDArray[np.uint8]:
    """Return uint8 [height, width, 3]: (7 x + 13 y + 101 c + (x y // 3) (c + 1)) mod 256."""
    y, x, c = np.mgrid[:height, :width, :3]
    pixels: NDArray[np.uint8] = ((7 * x + 13 * y + 101 * c + (x * y // 3) * (c + 1)) % 256).astype(
        np.uint8
    )
    return pixels


def make_case(height: int, width: int, image_size: int, crop_mode: str) -> dict[str, Any]:
    """Return one case: the input's and the output's SHA-256, and five pixels of the output."""
    image = make_input(height, width)
    fitted = preprocess_image(image, Preprocessing(image_size, crop_mode))
    last = image_size - 1
    places = ((0, 0), (0, last), (last, 0), (last, last), (image_size // 2, image_size // 3))
    return {
        "height": height,
        "width": width,
        "image_size": image_size,
        "crop_mode": crop_mode,
        "interpolation": "bilinear",
        "input_sha256": hashlib.sha256(image.tobytes()).hexdigest(),
        "output_sha256": hashlib.sha256(fitted.tobytes()).hexdigest(),
        "pixels": [{"y": y, "x": x, "rgb": fitted[y, x].tolist()} for y, x in places],
    }


def make_document() -> dict[str, Any]:
    """Return the whole file."""
    return {
        "input": "uint8 RGB, (7 x + 13 y + 101 c + (x y // 3) (c + 1)) mod 256",
        "cases": [make_case(*case) for case in CASES],
    }


if __name__ == "__main__":
    GOLDEN.write_text(json.dumps(make_document(), indent=1) + "\n", encoding="utf-8")
