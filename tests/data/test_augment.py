"""What every registered augmentation must keep, and what each does to a picture."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from lesiontk.data.augment import (
    AUGMENTATIONS,
    augment_dermoscopy,
    augment_trivially,
    flip_images,
    keep_images,
)
from lesiontk.system.frameworks import import_tensorflow

Images = NDArray[np.float32]
SIZE = 32
CHANGING = [name for name in AUGMENTATIONS if name != "none"]
SKIN = (190.0, 140.0, 120.0)
LESION = (90.0, 50.0, 40.0)

# The draw of augment_dermoscopy that changes nothing: row -> a number in 0..1.
NEUTRAL = dict.fromkeys(range(12), 0.5) | {1: 0.625}


def draw_images(count: int) -> Images:
    """Return noise in 0..255, so that any change shows."""
    generator = np.random.default_rng(0)
    return generator.uniform(0, 255, (count, SIZE, SIZE, 3)).astype(np.float32)


def draw_discs(count: int) -> Images:
    """Return a dark disc in the middle of skin, `count` times the same."""
    rows, columns = np.mgrid[:SIZE, :SIZE] - (SIZE - 1) / 2
    inside = np.hypot(rows, columns)[..., np.newaxis] < SIZE / 4
    return np.repeat(np.where(inside, LESION, SKIN)[np.newaxis], count, axis=0).astype(np.float32)


def apply(augment: Callable[[Any, Any], Any], images: Images, seed: tuple[int, int]) -> Images:
    tf = import_tensorflow()
    return np.asarray(augment(tf.constant(images), tf.constant(seed, tf.int32)))


# ------------------------------------------------------------------- every one


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_shape_type_and_range_are_kept(name: str) -> None:
    for seed in range(5):
        result = apply(AUGMENTATIONS.get(name), draw_images(6), (seed, 1))
        assert result.shape == (6, SIZE, SIZE, 3)
        assert result.dtype == np.float32
        assert result.min() >= 0
        assert result.max() <= 255


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_a_wide_picture_becomes_a_square_with_its_middle(name: str) -> None:
    wide = np.full((6, SIZE, SIZE + 12, 3), 10, np.float32)
    wide[:, SIZE // 4 : -SIZE // 4, SIZE // 4 + 6 : -SIZE // 4 - 6] = 240
    for seed in range(5):
        result = apply(AUGMENTATIONS.get(name), wide, (seed, 1))
        assert result.shape == (6, SIZE, SIZE, 3)
        assert (result[:, SIZE // 2, SIZE // 2] > result.mean(axis=(1, 2))).all()


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_the_same_seed_gives_the_same_pixels(name: str) -> None:
    augment = AUGMENTATIONS.get(name)
    first, again = (apply(augment, draw_images(6), (3, 14)) for _ in range(2))
    np.testing.assert_array_equal(first, again)


@pytest.mark.parametrize("name", CHANGING)
@pytest.mark.parametrize("other", [(3, 15), (4, 14)])
def test_another_seed_gives_other_pixels(name: str, other: tuple[int, int]) -> None:
    augment = AUGMENTATIONS.get(name)
    first = apply(augment, draw_images(16), (3, 14))
    assert not np.array_equal(first, apply(augment, draw_images(16), other))


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_a_traced_graph_gives_the_same_pixels(name: str) -> None:
    tf = import_tensorflow()
    augment = AUGMENTATIONS.get(name)
    expected = apply(augment, draw_images(4), (3, 14))
    traced = apply(tf.function(augment), draw_images(4), (3, 14))
    np.testing.assert_allclose(traced, expected, atol=0.05)


@pytest.mark.parametrize("name", CHANGING)
def test_images_of_a_batch_are_changed_independently(name: str) -> None:
    result = apply(AUGMENTATIONS.get(name), np.repeat(draw_images(1), 16, axis=0), (0, 0))
    assert len({image.tobytes() for image in result}) > 1


# ------------------------------------------------------------------------ each


def test_none_is_the_identity() -> None:
    np.testing.assert_array_equal(apply(keep_images, draw_images(3), (1, 2)), draw_images(3))


def test_flips_are_the_four_mirrorings() -> None:
    image = draw_images(1)
    mirrored = {image[0, ::a, ::b].tobytes() for a in (1, -1) for b in (1, -1)}
    result = apply(flip_images, np.repeat(image, 64, axis=0), (7, 7))
    assert {entry.tobytes() for entry in result} == mirrored


@pytest.fixture
def fix_draw(monkeypatch: pytest.MonkeyPatch) -> Callable[[dict[int, float]], None]:
    """Return a function that fixes what augment_dermoscopy draws."""
    tf = import_tensorflow()

    def fix(changes: dict[int, float]) -> None:
        values = NEUTRAL | changes

        def draw(shape: list[Any], seed: Any) -> Any:
            rows, count = shape
            assert rows == len(values)
            return tf.stack([tf.fill([count], values[row]) for row in range(rows)])

        monkeypatch.setattr(tf.random, "stateless_uniform", draw)

    return fix


FixDraw = Callable[[dict[int, float]], None]


def test_dermoscopy_can_leave_a_picture_alone(fix_draw: FixDraw) -> None:
    fix_draw({})
    result = apply(augment_dermoscopy, draw_images(2), (0, 0))
    np.testing.assert_allclose(result, draw_images(2), atol=0.01)


@pytest.mark.parametrize(("angle", "turns"), [(0.75, 1), (1.0, 2), (0.25, 3)])
def test_dermoscopy_turns_about_the_centre(fix_draw: FixDraw, angle: float, turns: int) -> None:
    fix_draw({0: angle})
    result = apply(augment_dermoscopy, draw_images(2), (0, 0))
    inner = np.s_[:, 1:-1, 1:-1]  # the border is filled by reflection
    expected = {k: np.rot90(draw_images(2), k, axes=(1, 2)) for k in (turns, 4 - turns)}
    differences = [np.abs(result[inner] - image[inner]).max() for image in expected.values()]
    assert min(differences) < 0.1


def test_dermoscopy_mirrors(fix_draw: FixDraw) -> None:
    fix_draw({3: 0.2})
    result = apply(augment_dermoscopy, draw_images(2), (0, 0))
    np.testing.assert_allclose(result, draw_images(2)[:, :, ::-1], atol=0.01)


@pytest.mark.parametrize(
    ("row", "low", "high"), [(6, 0.92, 1.08), (9, 0.86, 1.16)], ids=["white balance", "gain"]
)
def test_dermoscopy_gains_stay_within_what_cameras_differ_by(
    fix_draw: FixDraw, row: int, low: float, high: float
) -> None:
    flat = np.full((1, SIZE, SIZE, 3), 100, np.float32)
    for value, expected in ((0.0, low), (1.0, high)):
        fix_draw({row: value})
        red = apply(augment_dermoscopy, flat, (0, 0))[0, SIZE // 2, SIZE // 2, 0]
        assert red / 100 == pytest.approx(expected, abs=0.01)


def test_dermoscopy_keeps_the_colour_of_skin_recognizable() -> None:
    flat = np.broadcast_to(np.array(SKIN, np.float32), (256, SIZE, SIZE, 3)).copy()
    means = apply(augment_dermoscopy, flat, (1, 1)).mean(axis=(1, 2))
    assert np.abs(means / np.array(SKIN) - 1).max() < 0.35
    assert means.std(axis=0).min() > 5  # and does change it
    assert (np.diff(means, axis=1) < 0).mean() > 0.95  # red > green > blue stays


def test_trivial_augment_makes_one_change_of_colour_at_most() -> None:
    """Of flat pictures crops show nothing: a tenth or more stay, others differ in kind."""
    flat = np.broadcast_to(np.array(SKIN, np.float32), (400, SIZE, SIZE, 3)).copy()
    result = apply(augment_trivially, flat, (1, 1))
    varied = np.ptp(result, axis=(1, 2)).max(axis=1) > 0.5
    moved = np.abs(result.mean(axis=(1, 2)) - SKIN).max(axis=1) > 0.5
    assert 0.03 < varied.mean() < 0.3  # noise, on flat color
    assert 0.25 < moved.mean() < 0.6  # white balance, brightness, saturation, gamma
    assert 0.3 < (~varied & ~moved).mean() < 0.65


def test_dermoscopy_keeps_a_lesion_in_the_picture() -> None:
    result = apply(augment_dermoscopy, draw_discs(128), (2, 2))
    brightness = result.mean(axis=3)
    middle = (brightness.max(axis=(1, 2)) + brightness.min(axis=(1, 2))) / 2
    dark = brightness < middle[:, np.newaxis, np.newaxis]
    rows, columns = np.mgrid[:SIZE, :SIZE] - (SIZE - 1) / 2
    area = dark.sum(axis=(1, 2))
    y, x = ((dark * axis).sum(axis=(1, 2)) / area for axis in (rows, columns))
    assert np.hypot(x, y).max() < 0.15 * SIZE
    assert np.hypot(x, y).max() > 0.04 * SIZE  # it is moved
    area_before = np.pi * (SIZE / 4) ** 2
    assert 0.5 < (area / area_before).min() < 0.9
    assert 1.1 < (area / area_before).max() < 2.0
