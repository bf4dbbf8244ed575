"""Corruptions: registered changes of a picture as cameras, lights and skin make them.

Each has three severities of a stated strength. They apply to the picture as it was taken, before
crop and resize. After Hendrycks & Dietterich, "Benchmarking neural network robustness to common
corruptions and perturbations" (ICLR 2019), with what happens to dermoscopic pictures. Lengths are
shares of the picture's shorter side; in millimetres they assume that this side shows `FIELD_MM` of
skin.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from lesiontk.errors import UsageError, suggest
from lesiontk.registry import Registry

Pixels = NDArray[np.uint8]
FIELD_MM = 15.0
"""The skin along the shorter side of a picture in mm, as with ten-fold magnification."""
SEVERITIES = (1, 2, 3)


@dataclass(frozen=True, slots=True)
class Corruption:
    """A change of uint8 [H, W, 3] RGB by one of three `strengths`, from weak to strong.

    `apply` gets the picture, a strength and a generator, and returns another picture of the same
    shape. `words` describes a strength: ``{:g} hairs of 0.08 mm``.
    """

    apply: Callable[[Pixels, float, Generator], Pixels]
    strengths: tuple[float, float, float]
    words: str

    def describe(self, severity: int) -> str:
        """Return the strength of a severity, with its unit."""
        return self.words.format(self.strengths[severity - 1])


CORRUPTIONS: Registry[Corruption] = Registry("corruption")
CORRUPTIONS.register("hair", "lesiontk.data.corruptions.hair:HAIR")
CORRUPTIONS.register("blur", "lesiontk.data.corruptions.blur:BLUR")
CORRUPTIONS.register("jpeg", "lesiontk.data.corruptions.jpeg:JPEG")
CORRUPTIONS.register("lighting", "lesiontk.data.corruptions.light:LIGHTING")
CORRUPTIONS.register("colour", "lesiontk.data.corruptions.light:COLOUR")
CORRUPTIONS.register("rotation", "lesiontk.data.corruptions.rotation:ROTATION")


def check_corruptions(names: Iterable[str]) -> None:
    """Raise `UsageError` with the nearest known name for an unknown one."""
    for name in names:
        if name not in CORRUPTIONS:
            raise UsageError(
                f"unknown corruption {name!r}; known are {', '.join(CORRUPTIONS)}."
                + suggest(name, CORRUPTIONS)
            )


def corrupt_image(image: Pixels, name: str, severity: int, image_id: str) -> Pixels:
    """Return uint8 [H, W, 3] RGB under the corruption `name` at `severity` 1 to 3.

    What is random depends on name and `image_id` alone: severities of an image differ in strength
    only, and every run makes the same pictures. Raises `ValueError` for another dtype, shape or
    severity, which is a caller's bug, and `UsageError` for an unknown name.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise ValueError(f"image is {image.dtype} {image.shape}; expected uint8 [H, W, 3]")
    if severity not in SEVERITIES:
        raise ValueError(f"severity is {severity}; expected one of {SEVERITIES}")
    corruption = CORRUPTIONS.get(name)
    digest = hashlib.sha256(f"{name}\0{image_id}".encode()).digest()
    generator = np.random.default_rng(np.frombuffer(digest, dtype=np.uint32))
    return corruption.apply(
        np.ascontiguousarray(image), corruption.strengths[severity - 1], generator
    )
