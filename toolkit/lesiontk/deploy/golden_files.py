"""The golden outputs of a bundle as plain bytes, for devices that do not read NumPy's files."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import numpy as np

from lesiontk.deploy.file_names import GOLDEN

PROBABILITIES, STATUSES = "golden_probabilities.f32", "golden_statuses.u8"


def write_golden_files(
    bundle: Path, folder: Path, images_name: str, *, compress: bool
) -> dict[str, Any]:
    """Write images, probabilities and statuses of `bundle` into `folder`; return their names.

    The images are uint8 [N, S, S, 3], optionally a zlib stream, the probabilities little-endian
    float32 [N, C], the statuses uint8 [N], which only engines with input checks have.
    """
    with np.load(bundle / GOLDEN) as golden:
        images, probabilities = golden["images"].tobytes(), golden["probabilities"]
        statuses = golden.get("statuses")
    (folder / images_name).write_bytes(zlib.compress(images, 9) if compress else images)
    (folder / PROBABILITIES).write_bytes(probabilities.astype("<f4").tobytes())
    if statuses is not None:
        (folder / STATUSES).write_bytes(statuses.astype(np.uint8).tobytes())
    return {
        "golden_images": images_name,
        "golden_probabilities": PROBABILITIES,
        "golden_statuses": None if statuses is None else STATUSES,
    }
