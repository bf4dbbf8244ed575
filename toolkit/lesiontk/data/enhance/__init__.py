"""Enhancements: registered filters after crop and resize, one file each.

After Edizkan (2021), who enhanced HAM10000 by colour sharpening, edge detection and noise reduction
before an Inception-v2 that classified benign and malignant; hair removal and colour constancy come
from dermoscopy. The parameters are not his: they were set by eye, at 64 and 128 pixels.

A filter maps uint8 [S, S, 3] RGB to the same and has no options, so its name defines it.
Lengths are shares of S, about 32 to 512 pixels. Pixels are computed in integers (only tables and
gradients use floating point), so that a device gets the bytes that the network was trained on;
`tests/golden/enhance.json` contains them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
from numpy.typing import NDArray

from lesiontk.errors import UsageError, suggest
from lesiontk.registry import Registry

Enhancement = Callable[[NDArray[np.uint8]], NDArray[np.uint8]]

ENHANCEMENTS: Registry[Enhancement] = Registry("enhancement")
ENHANCEMENTS.register("hair_removal", "lesiontk.data.enhance.hair_removal:remove_hair")
ENHANCEMENTS.register(
    "colour_constancy", "lesiontk.data.enhance.colour_constancy:remove_colour_cast"
)
ENHANCEMENTS.register("noise_reduction", "lesiontk.data.enhance.noise_reduction:reduce_noise")
ENHANCEMENTS.register(
    "colour_sharpening", "lesiontk.data.enhance.colour_sharpening:sharpen_colours"
)
ENHANCEMENTS.register("edge_enhancement", "lesiontk.data.enhance.edge_enhancement:enhance_edges")
ENHANCEMENTS.register("edge_detection", "lesiontk.data.enhance.edge_detection:blend_edge_map")


def check_enhancements(names: Iterable[str]) -> None:
    """Raise `UsageError` with the nearest known name for an unknown one; imports no OpenCV."""
    for name in names:
        if name not in ENHANCEMENTS:
            raise UsageError(
                f"unknown enhancement {name!r}; known are {', '.join(ENHANCEMENTS)}."
                + suggest(name, ENHANCEMENTS)
            )


def enhance_image(image: NDArray[np.uint8], names: Iterable[str]) -> NDArray[np.uint8]:
    """Return uint8 [S, S, 3] RGB after the filters `names`, in order.

    The input is not modified; without a name it is returned itself. Raises `ValueError` for another
    dtype or shape, which is a caller's bug, and `UsageError` for an unknown name.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape != (len(image), len(image), 3):
        raise ValueError(f"image is {image.dtype} {image.shape}; expected uint8 [S, S, 3]")
    for name in names:
        image = ENHANCEMENTS.get(name)(np.ascontiguousarray(image))
    return image
