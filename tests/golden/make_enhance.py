"""Write `enhance.json`, by which every implementation of the enhancements is held equal.

Run with lesiontk importable: ``python tests/golden/make_enhance.py``. The input picture is made by
`make_lesion` in whole numbers, so that an implementation in another language needs no file for it.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lesiontk.data.enhance import ENHANCEMENTS
from lesiontk.data.preprocess import preprocess_image
from lesiontk.records import Preprocessing

GOLDEN = Path(__file__).with_name("enhance.json")
HEIGHT, WIDTH = 240, 320
SIZES = (32, 96, 224)
# In another order these give other pictures.
CHAINS = (
    ("hair_removal", "colour_constancy", "noise_reduction", "colour_sharpening"),
    ("colour_sharpening", "noise_reduction", "colour_constancy", "hair_removal"),
)


def make_lesion() -> NDArray[np.uint8]:
    """Return uint8 [240, 320, 3]: a brown ellipse on skin, two hairs, grain of 0 to 4.

    Skin is (205, 160, 140) - x // 16, the lesion (2 (x - 160))^2 + (3 (y - 120))^2 < 150^2 is
    (110, 65, 50) + (x y // 64) mod 24, a hair abs(x - y - 40) < 4 or abs(2 x + y - 400) < 5 is
    (45, 35, 30), and the grain (7 x + 13 y + 11 c + (x y // 3)) mod 5 lies on all of it.
    """
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    picture = np.array([205, 160, 140]) - (x // 16)[..., np.newaxis]
    lesion = (2 * (x - 160)) ** 2 + (3 * (y - 120)) ** 2 < 150**2
    pigment = np.array([110, 65, 50]) + (x * y // 64 % 24)[..., np.newaxis]
    picture = np.where(lesion[..., np.newaxis], pigment, picture)
    hair = (np.abs(x - y - 40) < 4) | (np.abs(2 * x + y - 400) < 5)
    picture[hair] = (45, 35, 30)
    grain = [(7 * x + 13 * y + 11 * c + x * y // 3) % 5 for c in range(3)]
    lesion_picture: NDArray[np.uint8] = (picture + np.stack(grain, axis=-1)).astype(np.uint8)
    return lesion_picture


def make_case(image_size: int, enhance: tuple[str, ...]) -> dict[str, Any]:
    """Return one case: the output's SHA-256, and five pixels of it."""
    enhanced = preprocess_image(make_lesion(), Preprocessing(image_size, enhance=enhance))
    last, half = image_size - 1, image_size // 2
    places = ((0, 0), (last, 0), (half, half), (half, image_size // 4), (image_size // 3, half))
    return {
        "image_size": image_size,
        "crop_mode": "crop",
        "enhance": list(enhance),
        "output_sha256": hashlib.sha256(enhanced.tobytes()).hexdigest(),
        "pixels": [{"y": y, "x": x, "rgb": enhanced[y, x].tolist()} for y, x in places],
    }


def make_document() -> dict[str, Any]:
    """Return the whole file."""
    chains = ((), *((name,) for name in ENHANCEMENTS), *CHAINS)
    return {
        "input": " ".join((make_lesion.__doc__ or "").split()),
        "input_sha256": hashlib.sha256(make_lesion().tobytes()).hexdigest(),
        "cases": [make_case(size, chain) for size in SIZES for chain in chains],
    }


if __name__ == "__main__":
    GOLDEN.write_text(json.dumps(make_document(), indent=1) + "\n", encoding="utf-8")
