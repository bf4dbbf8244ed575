"""Images that are not dermoscopic, to measure whether an engine's input checks refuse them.

Procedural ones are drawn from a seed and need no data; photographs are crops of the few pictures
that scikit-learn and matplotlib ship.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib import resources
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

Picture = NDArray[np.uint8]
SKIN_TONES: Final = ((255, 224, 196), (238, 188, 158), (204, 142, 108), (150, 96, 68), (92, 58, 44))
"""RGB of skin from light to dark."""
PHOTOGRAPHS: Final = (
    ("sklearn.datasets.images", "china.jpg"),
    ("sklearn.datasets.images", "flower.jpg"),
    ("matplotlib", "mpl-data/sample_data/grace_hopper.jpg"),
)
WORDS: Final = ("patient", "name", "date", "birth", "left", "arm", "follow-up", "lesion", "report")


def draw_noise(rng: np.random.Generator, size: int) -> Picture:
    """Return uint8 [size, size, 3]: independent pixels, in colour or grey, at any contrast."""
    channels = int(rng.choice([1, 3]))
    values = rng.normal(rng.uniform(60, 200), rng.uniform(10, 80), (size, size, channels))
    return np.broadcast_to(_bytes(values), (size, size, 3)).copy()


def draw_texture(rng: np.random.Generator, size: int) -> Picture:
    """Return uint8 [size, size, 3]: stripes, squares, or clouds of 1/f noise, of two colours."""
    rows, columns = np.mgrid[:size, :size] / size
    angle, count = rng.uniform(0, np.pi), rng.uniform(3, 30)
    across = rows * np.cos(angle) + columns * np.sin(angle)
    along = columns * np.cos(angle) - rows * np.sin(angle)
    kind = rng.integers(3)
    if kind == 0:
        mix = 0.5 + 0.5 * np.sin(2 * np.pi * count * across)
    elif kind == 1:
        mix = (np.floor(count * across) + np.floor(count * along)) % 2
    else:
        mix = _cloud(rng, size, rng.uniform(0.8, 1.6))
    first, second = rng.integers(0, 256, (2, 3))
    return _bytes(first + (second - first) * mix[..., np.newaxis])


def draw_skin(rng: np.random.Generator, size: int) -> Picture:
    """Return uint8 [size, size, 3]: shaded skin without a lesion, as from too far away."""
    rows, columns = np.mgrid[:size, :size] / size - 0.5
    angle = rng.uniform(0, 2 * np.pi)
    light = 1 + rng.uniform(0.1, 0.5) * (rows * np.cos(angle) + columns * np.sin(angle))
    light += rng.uniform(0.02, 0.08) * (_cloud(rng, size, 1.2) - 0.5)
    tone = np.array(SKIN_TONES[rng.integers(len(SKIN_TONES))])
    return _bytes(tone * light[..., np.newaxis] + rng.normal(0, 3, (size, size, 1)))


def draw_text(rng: np.random.Generator, size: int) -> Picture:
    """Return uint8 [size, size, 3]: lines of dark or bright text, as of a form or a screen."""
    ground = int(rng.integers(180, 256))
    ink = int(rng.integers(0, 80))
    if rng.integers(2):
        ground, ink = ink, ground
    image = Image.new("RGB", (size, size), (ground, ground, ground))
    pen = ImageDraw.Draw(image)
    height = int(rng.integers(max(8, size // 20), max(9, size // 7)))
    font = ImageFont.load_default(height)
    for top in range(int(rng.integers(height)), size, int(1.4 * height)):
        pen.text((size // 30, top), " ".join(rng.choice(WORDS, 8)), (ink, ink, ink), font)
    return np.array(image)


def crop_photograph(rng: np.random.Generator, size: int) -> Picture:
    """Return uint8 [size, size, 3]: a random square of a photograph, mirrored or not."""
    package, name = PHOTOGRAPHS[rng.integers(len(PHOTOGRAPHS))]
    with resources.files(package).joinpath(name).open("rb") as stream, Image.open(stream) as opened:
        picture = opened.convert("RGB")
    side = int(rng.uniform(0.35, 1.0) * min(picture.size))
    left, top = (int(rng.integers(0, length - side + 1)) for length in picture.size)
    box = (left, top, left + side, top + side)
    square = np.array(picture.resize((size, size), Image.Resampling.BILINEAR, box=box))
    return np.ascontiguousarray(square[:, :: int(rng.choice([-1, 1]))])


OTHER_IMAGES: Final[dict[str, Callable[[np.random.Generator, int], Picture]]] = {
    "noise": draw_noise,
    "texture": draw_texture,
    "text": draw_text,
    "skin": draw_skin,
    "photograph": crop_photograph,
}
"""Family -> one random image of it."""


def draw_other_images(family: str, count: int, size: int, seed: int) -> Iterator[Picture]:
    """Yield `count` images uint8 [size, size, 3] of a family, the same for the same seed."""
    rng = np.random.default_rng([seed, list(OTHER_IMAGES).index(family)])
    for _ in range(count):
        yield OTHER_IMAGES[family](rng, size)


def _cloud(rng: np.random.Generator, size: int, power: float) -> NDArray[np.float64]:
    """Return noise [size, size] with a spectrum 1/f^power, in 0..1."""
    frequency = np.hypot(np.fft.fftfreq(size)[:, np.newaxis], np.fft.rfftfreq(size))
    frequency[0, 0] = np.inf
    noise = rng.normal(size=(2, *frequency.shape)) / frequency**power
    field = np.fft.irfft2(noise[0] + 1j * noise[1], (size, size))
    scaled: NDArray[np.float64] = (field - field.min()) / np.ptp(field)
    return scaled


def _bytes(values: NDArray[np.floating]) -> Picture:
    picture: Picture = np.clip(np.rint(values), 0, 255).astype(np.uint8)
    return picture
