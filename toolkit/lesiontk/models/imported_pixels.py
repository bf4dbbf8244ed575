"""The input format of a user's model, computed from the bytes of an RGB image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from lesiontk.models.imported_affine import Affine


@dataclass(frozen=True, slots=True)
class PixelFormat:
    """Values ``pixels[..., order] * scale + offset`` of bytes in RGB."""

    scale: tuple[float, ...] = (1.0,)
    offset: tuple[float, ...] = (0.0,)
    order: tuple[int, int, int] = (0, 1, 2)

    def of(self, image: Any, name: str) -> Affine:
        """Return the values of a Keras tensor or an array [N, S, S, 3]."""
        scale, offset = (
            np.asarray(values[0] if len(values) == 1 else values, np.float64)
            for values in (self.scale, self.offset)
        )
        return Affine.of(image, name).take(self.order).then(scale, offset)


BGR_MEANS = (103.939, 116.779, 123.68)
CLIP_MEANS = (0.48145466, 0.4578275, 0.40821073)
CLIP_DEVIATIONS = (0.26862954, 0.26130258, 0.27577711)
IMAGENET_MEANS, IMAGENET_DEVIATIONS = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

PIXELS: dict[str, PixelFormat] = {
    "0..255": PixelFormat(),
    "0..1": PixelFormat((1 / 255,)),
    "-1..1": PixelFormat((1 / 127.5,), (-1.0,)),
    # Keras' preprocess_input of VGG and ResNet V1: blue, green, red minus ImageNet's means.
    "caffe": PixelFormat((1.0,), tuple(-mean for mean in BGR_MEANS), (2, 1, 0)),
    # PyTorch's and DenseNet's.
    "imagenet": PixelFormat(
        tuple(1 / (255 * deviation) for deviation in IMAGENET_DEVIATIONS),
        tuple(-m / d for m, d in zip(IMAGENET_MEANS, IMAGENET_DEVIATIONS, strict=True)),
    ),
    # Of CLIP and its descendants, such as BiomedCLIP.
    "clip": PixelFormat(
        tuple(1 / (255 * deviation) for deviation in CLIP_DEVIATIONS),
        tuple(-m / d for m, d in zip(CLIP_MEANS, CLIP_DEVIATIONS, strict=True)),
    ),
}
"""The values of ``--pixels``."""
