"""Corruptions are what their strength says, the same for an image in every run."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
from numpy.typing import NDArray

from lesiontk.data.corruptions import (
    CORRUPTIONS,
    FIELD_MM,
    SEVERITIES,
    check_corruptions,
    corrupt_image,
)
from lesiontk.data.corruptions.blur import make_disk
from lesiontk.data.corruptions.light import find_gains
from lesiontk.errors import UsageError
from tests.golden.make_corruptions import GOLDEN, IMAGE_ID, summarize
from tests.golden.make_enhance import make_lesion

ROUNDING = 0.5
"""Levels of 255 by which the mean color of a part may differ between versions of decoders."""


def change(name: str, severity: int, image_id: str = IMAGE_ID) -> NDArray[np.uint8]:
    return corrupt_image(make_lesion(), name, severity, image_id)


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_the_pictures_are_those_of_the_golden_file(name: str) -> None:
    for severity, expected in enumerate(json.loads(GOLDEN.read_text())[name], start=1):
        assert CORRUPTIONS.get(name).describe(severity) == expected["strength"]
        differences = np.abs(summarize(change(name, severity)) - expected["colors"])
        assert differences.max() < ROUNDING, (name, severity)


def test_another_picture_would_not_pass_the_golden_file() -> None:
    document = json.loads(GOLDEN.read_text())
    for name, severities in document.items():
        for severity in SEVERITIES:
            other = severities[severity % 3]["colors"]
            assert np.abs(summarize(change(name, severity)) - other).max() > ROUNDING, name


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_shape_stays_the_input_stays_and_a_repetition_is_equal(name: str) -> None:
    picture = make_lesion()
    before = picture.copy()
    for severity in SEVERITIES:
        first = corrupt_image(picture, name, severity, "a")
        assert first.shape == picture.shape
        assert first.dtype == np.uint8
        assert not np.array_equal(first, picture)
        np.testing.assert_array_equal(first, corrupt_image(picture, name, severity, "a"))
    np.testing.assert_array_equal(picture, before)


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_a_higher_severity_changes_more(name: str) -> None:
    picture = make_lesion().astype(np.int64)
    errors = [np.square(change(name, severity) - picture).mean() for severity in SEVERITIES]
    assert errors == sorted(errors)
    assert errors[0] < errors[-1]


@pytest.mark.parametrize("name", ["hair", "lighting", "colour", "rotation"])
def test_images_differ_in_what_is_random(name: str) -> None:
    made = {change(name, 2, f"image {number}").tobytes() for number in range(12)}
    assert len(made) > 1


def test_the_hairs_of_a_severity_are_among_those_of_the_next() -> None:
    white = np.full((240, 320, 3), 255, np.uint8)
    covered = [corrupt_image(white, "hair", severity, "a")[..., 0] < 255 for severity in SEVERITIES]
    for fewer, more in itertools.pairwise(covered):
        assert (fewer & more).sum() == fewer.sum() < more.sum()


@pytest.mark.parametrize("side", [120, 480])
def test_a_hair_is_as_wide_as_it_says_at_any_resolution(side: int) -> None:
    """The covered area grows with the square of the resolution: width and length are physical."""
    white = np.full((side, side, 3), 255, np.uint8)
    darkness = 255.0 - corrupt_image(white, "hair", 3, "a")[..., 0]
    assert darkness.mean() == pytest.approx(17.0, rel=0.15)


def test_a_disk_is_as_wide_as_it_says() -> None:
    disk = make_disk(9.0)
    assert disk.sum() == pytest.approx(1.0)
    assert disk.max() == pytest.approx(1 / (np.pi * 4.5**2), rel=0.03)
    assert (disk > 0).sum(axis=1).max() == 9
    np.testing.assert_array_equal(make_disk(0.5), [[1.0]])


def test_blur_spreads_a_point_over_the_circle_of_confusion() -> None:
    point = np.zeros((150, 200, 3), np.uint8)
    point[75, 100] = 255
    spread = corrupt_image(np.full_like(point, 0) + point, "blur", 3, "a")[..., 0] > 0
    assert spread.any(axis=0).sum() == pytest.approx(0.6 / FIELD_MM * 150, abs=2)


def test_exposure_doubles_or_halves_linear_light() -> None:
    grey = np.full((4, 4, 3), 120, np.uint8)
    linear = ((120 / 255 + 0.055) / 1.055) ** 2.4
    for image_id in map(str, range(6)):
        level = int(corrupt_image(grey, "lighting", 2, image_id)[0, 0, 0])
        ratio = ((level / 255 + 0.055) / 1.055) ** 2.4 / linear
        assert ratio == pytest.approx(2.0, rel=0.02) or ratio == pytest.approx(0.5, rel=0.03)


def test_warm_light_is_red_and_cold_light_blue_at_equal_luminance() -> None:
    luminance = np.array([0.2126729, 0.7151522, 0.0721750])
    np.testing.assert_allclose(find_gains(0), 1)
    for mired, warm in ((80, True), (-80, False)):
        red, _, blue = find_gains(mired)
        assert red > 1 > blue if warm else red < 1 < blue
        assert luminance @ find_gains(mired) == pytest.approx(1, abs=0.02)


def test_a_quarter_turn_has_the_pixels_of_the_picture() -> None:
    square = make_lesion()[:, 40:280]
    turned = [np.rot90(square, times) for times in (1, 3)]
    assert any(np.array_equal(corrupt_image(square, "rotation", 3, "a"), t) for t in turned)


def test_a_wrong_name_is_answered_with_the_nearest() -> None:
    check_corruptions(["hair", "blur"])
    with pytest.raises(UsageError, match=r"unknown corruption 'hairs'.*hair"):
        check_corruptions(["hairs"])
    with pytest.raises(UsageError, match="unknown corruption"):
        corrupt_image(make_lesion(), "fog", 1, "a")


def test_a_callers_mistake_is_named() -> None:
    with pytest.raises(ValueError, match=r"severity is 4; expected one of \(1, 2, 3\)"):
        corrupt_image(make_lesion(), "hair", 4, "a")
    with pytest.raises(ValueError, match=r"float32 \(240, 320, 3\); expected uint8 \[H, W, 3\]"):
        corrupt_image(make_lesion().astype(np.float32), "hair", 1, "a")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"expected uint8"):
        corrupt_image(make_lesion()[..., 0], "hair", 1, "a")
