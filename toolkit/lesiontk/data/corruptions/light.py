"""Lighting and colour: exposure, and the colour temperature of the light.

Both scale linear light: pixels are sRGB (IEC 61966-2-1) and are decoded, scaled and encoded again.
"""

from __future__ import annotations

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from lesiontk.data.corruptions import Corruption, Pixels

FloatArray = NDArray[np.float64]
DAYLIGHT_K = 6504.0
"""The white of sRGB, D65."""
RGB_FROM_XYZ = np.array(
    [
        [3.2404542, -1.5371385, -0.4985314],
        [-0.9692660, 1.8760108, 0.0415560],
        [0.0556434, -0.2040259, 1.0572252],
    ]
)


def change_exposure(image: Pixels, stops: float, generator: Generator) -> Pixels:
    """Return the picture over- or underexposed by `stops` (EV), half of the pictures each."""
    return _scale_light(image, np.full(3, 2.0 ** (_draw_sign(generator) * stops)))


def change_temperature(image: Pixels, mired: float, generator: Generator) -> Pixels:
    """Return the picture in warmer or colder light than the camera assumed, by `mired`."""
    return _scale_light(image, find_gains(_draw_sign(generator) * mired))


def find_gains(mired: float) -> FloatArray:
    """Return the gains [3] of linear RGB in light that is warmer than daylight by `mired`.

    A mired is 1e6 / K. The luminance of white stays.
    """
    light = _describe_black_body(1e6 / (1e6 / DAYLIGHT_K + mired))
    gains: FloatArray = light / _describe_black_body(DAYLIGHT_K)
    return gains


def _describe_black_body(kelvin: float) -> FloatArray:
    """Return the linear RGB [3] of a black body, of luminance 1, at 4000 to 25,000 K.

    The cubic splines of the Planckian locus are those of Kim et al., US patent 7024034 (2006).
    """
    t = 1e3 / kelvin
    x = ((-3.0258469 * t + 2.1070379) * t + 0.2226347) * t + 0.240390
    y = ((3.0817580 * x - 5.87338670) * x + 3.75112997) * x - 0.37001483
    rgb: FloatArray = RGB_FROM_XYZ @ np.array([x / y, 1.0, (1 - x - y) / y])
    return rgb


def _draw_sign(generator: Generator) -> float:
    return 1.0 if generator.random() < 0.5 else -1.0


def _scale_light(image: Pixels, gains: FloatArray) -> Pixels:
    coded = np.arange(256) / 255.0
    linear = np.where(coded <= 0.04045, coded / 12.92, ((coded + 0.055) / 1.055) ** 2.4)
    lit = np.clip(linear[:, np.newaxis] * gains, 0.0, 1.0)
    encoded = np.where(lit <= 0.0031308, 12.92 * lit, 1.055 * lit ** (1 / 2.4) - 0.055)
    table = np.rint(255.0 * encoded).astype(np.uint8)
    return np.stack([table[image[..., channel], channel] for channel in range(3)], axis=-1)


LIGHTING = Corruption(change_exposure, (0.5, 1.0, 1.5), "exposure ±{:g} EV")
COLOUR = Corruption(change_temperature, (20, 40, 80), "colour temperature ±{:g} mired")
