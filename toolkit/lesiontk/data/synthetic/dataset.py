"""A procedural replacement of HAM10000, for demonstrations and tests without data.

The seed of a lesion determines its patient's skin, its outline and the place of every structure.
Views of it differ as photographs do: rotation, zoom, shift, light, hair, focus and sensor noise.
The images are caricatures: a result on them shows that the software works, and nothing about skin.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from lesiontk.data.synthetic.lesions import PAINTERS
from lesiontk.data.synthetic.structures import Field, Skin, cover, noise, ramp, strokes
from lesiontk.errors import DataError, suggest

DIAGNOSES: tuple[str, ...] = tuple(PAINTERS)

_SHARES = {
    "nv": 0.30,
    "mel": 0.16,
    "bkl": 0.16,
    "bcc": 0.12,
    "akiec": 0.10,
    "vasc": 0.08,
    "df": 0.08,
}
_VIEW_COUNTS, _VIEW_SHARES = (1, 2, 3), (0.55, 0.30, 0.15)
_PARTS = ("HAM10000_images_part_1", "HAM10000_images_part_2")
_COLUMNS = ("lesion_id", "image_id", "dx", "dx_type", "age", "sex", "localization")
_MEAN_AGES = {"nv": 45, "df": 50, "vasc": 50, "mel": 60, "bkl": 63, "bcc": 66, "akiec": 66}
_SITES = ("back", "trunk", "lower extremity", "upper extremity", "abdomen", "face", "chest", "neck")

# Fair pink, fair yellow, olive and brown skin under a polarized dermatoscope, RGB.
_TONES = np.array([[232, 192, 182], [236, 204, 178], [212, 168, 142], [176, 128, 104]], float)
_TONE_SHARES = (0.4, 0.3, 0.2, 0.1)


def render_view(diagnosis: str, lesion_seed: int, view: int, size: int) -> NDArray[np.uint8]:
    """Return an image of one lesion, uint8 RGB [size, size, 3], determined by the arguments.

    `lesion_seed` and `diagnosis` determine the lesion, `view` (0, 1, 2, ...) its photograph. The
    square is the centre of the image of 4 : 3 that `write_synthetic_dataset` stores. Raises
    `DataError` for an unknown diagnosis, a negative seed or view, or a size below 16 pixels.
    """
    picture = _photograph(diagnosis, lesion_seed, view, size)
    left = (picture.shape[1] - size) // 2
    return np.ascontiguousarray(picture[:, left : left + size])


def write_synthetic_dataset(
    directory: Path,
    *,
    lesions: int,
    image_size: int,
    seed: int,
    advance: Callable[[int], None] | None = None,
) -> int:
    """Write `lesions` lesions in HAM10000's layout below `directory`; return the image count.

    Images are `image_size` pixels high and a third wider. A lesion depends on `seed` and its
    number alone, so a larger set begins with the smaller one, and writing again changes no byte.
    `advance(1)` is called after each image. Raises `DataError` for fewer than seven lesions, an
    image size below 16 pixels, a negative seed, or a directory with other images.
    """
    if lesions < len(DIAGNOSES):
        raise DataError(
            f"lesions is {lesions}; expected at least {len(DIAGNOSES)}, one of each diagnosis. "
            f"Request {len(DIAGNOSES)} or more."
        )
    _check_not_negative("seed", seed)
    _check_size("image_size", image_size)
    shots = list(_plan_shots(lesions, seed))
    _check_nothing_else(directory, shots)
    for part in _PARTS:
        (directory / part).mkdir(parents=True, exist_ok=True)
    # The table is removed first and written last: an incomplete set has none.
    metadata = directory / "HAM10000_metadata.csv"
    metadata.unlink(missing_ok=True)
    for shot in shots:
        picture = _photograph(shot.diagnosis, shot.lesion_seed, shot.view, image_size)
        Image.fromarray(picture).save(directory / shot.location, quality=95)
        if advance is not None:
            advance(1)
    with metadata.open("w", newline="", encoding="utf-8") as stream:
        table = csv.writer(stream, lineterminator="\n")
        table.writerow(_COLUMNS)
        table.writerows(shot.row for shot in shots)
    return len(shots)


@dataclass(frozen=True, slots=True)
class _Shot:
    """One image to render, its path and its row of the metadata."""

    diagnosis: str
    lesion_seed: int
    view: int
    location: str
    row: tuple[str, ...]


def _plan_shots(lesions: int, seed: int) -> Iterator[_Shot]:
    """Yield every image of the set, in order."""
    number = 0
    for index, diagnosis in enumerate(_plan_diagnoses(lesions)):
        rng = np.random.default_rng([seed, index])
        lesion_seed = int(rng.integers(2**62))
        views = int(rng.choice(_VIEW_COUNTS, p=_VIEW_SHARES))
        years = 5 * round(float(rng.normal(_MEAN_AGES[diagnosis], 14)) / 5)
        age = "" if rng.random() < 0.03 else f"{min(max(years, 5), 85)}.0"
        sex = str(rng.choice(("male", "female", "unknown"), p=(0.53, 0.45, 0.02)))
        site = str(rng.choice(_SITES))
        for view in range(views):
            number += 1
            image_id = f"SYNIMG_{number:07d}"
            yield _Shot(
                diagnosis,
                lesion_seed,
                view,
                f"{_PARTS[number % 2 - 1]}/{image_id}.jpg",
                (f"SYN_{index + 1:07d}", image_id, diagnosis, "synthetic", age, sex, site),
            )


def _plan_diagnoses(lesions: int) -> list[str]:
    """Return diagnoses of which every prefix is as balanced as possible."""
    planned = list(DIAGNOSES)
    counts = dict.fromkeys(DIAGNOSES, 1)
    while len(planned) < lesions:
        furthest_below = max(
            DIAGNOSES, key=lambda name: _SHARES[name] * (len(planned) + 1) - counts[name]
        )
        planned.append(furthest_below)
        counts[furthest_below] += 1
    return planned


def _check_nothing_else(directory: Path, shots: list[_Shot]) -> None:
    """Raise `DataError` for a directory with images that the new metadata would not list."""
    expected = {directory / shot.location for shot in shots}
    for part in _PARTS:
        for found in sorted((directory / part).glob("*.jpg")):
            if found not in expected:
                raise DataError(
                    f"{directory} contains {found.name}, which is not one of the {len(shots)} "
                    "images of this set; expected an empty directory. Choose another or remove "
                    "its images."
                )


def _check_not_negative(name: str, value: int) -> None:
    if value < 0:
        raise DataError(f"{name} is {value}; expected 0 or more. Give a whole number from 0 up.")


def _check_size(name: str, size: int) -> None:
    if size < 16:
        raise DataError(f"{name} is {size}; expected at least 16 pixels. Specify 16 or more.")


def _photograph(diagnosis: str, lesion_seed: int, view: int, height: int) -> NDArray[np.uint8]:
    """Return one image, uint8 RGB [height, 4/3 height, 3]."""
    if diagnosis not in PAINTERS:
        raise DataError(
            f"diagnosis is {diagnosis!r}; expected one of {', '.join(DIAGNOSES)}."
            + suggest(diagnosis, DIAGNOSES)
        )
    _check_not_negative("lesion_seed", lesion_seed)
    _check_not_negative("view", view)
    _check_size("size", height)
    number = DIAGNOSES.index(diagnosis)
    of_lesion = np.random.default_rng([lesion_seed, number])
    of_view = np.random.default_rng([lesion_seed, number, view + 1])
    skin = _frame(of_view, height, round(height * 4 / 3))
    tone = _bare_skin(skin, of_lesion)
    colour = PAINTERS[diagnosis](skin, of_lesion).colour_over(tone)
    colour = _add_hair(colour, skin, of_view)
    colour = _light(colour, of_view)
    return _expose(colour, of_view)


def _frame(rng: Generator, height: int, width: int) -> Skin:
    """Return a camera view: any rotation, a zoom of up to a fifth and a small shift."""
    angle, zoom = rng.uniform(0, 2 * np.pi), rng.uniform(0.85, 1.2)
    shift = rng.uniform(-0.1, 0.1, 2)
    scale = 0.5 * height * zoom
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    middle = np.array([(width - 1) / 2, (height - 1) / 2]) + shift * height / 2
    pixels_from_skin = np.column_stack((scale * turn, middle))
    y, x = np.mgrid[:height, :width].astype(np.float32)
    inverse = np.linalg.inv(scale * turn).astype(np.float32)
    dx, dy = x - np.float32(middle[0]), y - np.float32(middle[1])
    return Skin(
        u=inverse[0, 0] * dx + inverse[0, 1] * dy,
        v=inverse[1, 0] * dx + inverse[1, 1] * dy,
        pixels_from_skin=pixels_from_skin,
    )


def _bare_skin(skin: Skin, rng: Generator) -> Field:
    """Return the patient's skin [H, W, 3]: two mixed tones with reddish blotches and grain."""
    first, second = rng.choice(len(_TONES), 2, p=_TONE_SHARES)
    share = rng.uniform(0, 1)
    tone = share * _TONES[first] + (1 - share) * _TONES[second] + rng.normal(0, 4, 3)
    blotches = rng.uniform(0.01, 0.03) * noise(skin, rng, 0.5)
    grain = rng.uniform(0.005, 0.02) * noise(skin, rng, 0.05)
    redness = np.array([0.2, 1.0, 0.9], np.float32) * blotches[..., None]
    skin_colour: Field = np.asarray(tone, np.float32) * (1 + redness + grain[..., None])
    return skin_colour


def _add_hair(colour: Field, skin: Skin, rng: Generator) -> Field:
    """Return the image with dark curved hairs in about half of the views."""
    count = int(rng.integers(1, 14)) if rng.random() < 0.45 else 0
    shade = rng.uniform(25, 95)
    along = np.linspace(0, 1, 12)
    lines = []
    for _ in range(count):
        start, heading = rng.uniform(-1.3, 1.3, 2), rng.uniform(0, 2 * np.pi)
        bend = heading + rng.normal(0, 0.9) * along
        step = rng.uniform(0.5, 2.2) / along.size * np.column_stack((np.cos(bend), np.sin(bend)))
        lines.append((start + np.cumsum(step, axis=0), rng.uniform(0.01, 0.022)))
    if not lines:
        return colour
    return cover(colour, 0.85 * strokes(skin, lines), (shade, 0.8 * shade, 0.65 * shade))


def _light(colour: Field, rng: Generator) -> Field:
    """Apply brightness, white balance, uneven light and sometimes the dermatoscope's dark rim."""
    height, width = colour.shape[:2]
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j].astype(np.float32)
    balance = rng.uniform(0.82, 1.1) * rng.normal(1, 0.02, 3).astype(np.float32)
    light = 1 + rng.normal(0, 0.04) * x + rng.normal(0, 0.04) * y
    light -= rng.uniform(0, 0.08) * (x * x + y * y)
    if rng.random() < 0.15:
        from_middle = np.hypot(x * width / height, y)
        light *= 1 - 0.95 * ramp(from_middle, rng.uniform(1.12, 1.3), 1.36)
    lit: Field = colour * light[..., None] * balance
    return lit


def _expose(colour: Field, rng: Generator) -> NDArray[np.uint8]:
    """Return the image after focus and sensor: slight blur, noise, 8 bits."""
    blur = rng.uniform(0.0, 0.012) * colour.shape[0] / 2
    blurred: Field = ndimage.gaussian_filter(colour, (blur, blur, 0))
    blurred += rng.uniform(1, 4) * rng.standard_normal(colour.shape, dtype=np.float32)
    return np.clip(np.rint(blurred), 0, 255).astype(np.uint8)
