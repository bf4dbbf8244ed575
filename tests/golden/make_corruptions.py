"""Write `corruptions.json`: the corrupted pictures that a later version must make, too.

Run with lesiontk importable: ``python -m tests.golden.make_corruptions``. The input is that of
`make_enhance.make_lesion`. A picture is kept as the mean and the deviation of the color of 4 x 4
parts, because decoders and OpenCV may round a pixel differently from version to version.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lesiontk.data.corruptions import CORRUPTIONS, SEVERITIES, corrupt_image
from tests.golden.make_enhance import make_lesion

GOLDEN = Path(__file__).with_name("corruptions.json")
IMAGE_ID = "ISIC_0024306"
PARTS = 4


def summarize(picture: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Return float64 [4, 4, 6]: the mean color of each part, and its standard deviation."""
    height, width = (side // PARTS for side in picture.shape[:2])
    parts = picture[: height * PARTS, : width * PARTS].reshape(PARTS, height, PARTS, width, 3)
    return np.concatenate([parts.mean(axis=(1, 3)), parts.std(axis=(1, 3))], axis=-1)


def make_document() -> dict[str, Any]:
    """Return corruption -> its parameters in words and its summary, for each severity."""
    picture = make_lesion()
    return {
        name: [
            {
                "strength": CORRUPTIONS.get(name).describe(severity),
                "colors": summarize(corrupt_image(picture, name, severity, IMAGE_ID))
                .round(2)
                .tolist(),
            }
            for severity in SEVERITIES
        ]
        for name in CORRUPTIONS
    }


if __name__ == "__main__":
    GOLDEN.write_text(json.dumps(make_document()) + "\n", encoding="utf-8")
