"""Epochs of training batches: which images, in which order, how often."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from lesiontk.data.augment import keep_images
from lesiontk.data.batches import TrainingBatches
from lesiontk.data.images import ImageSet
from lesiontk.errors import DataError
from lesiontk.system.frameworks import import_tensorflow
from tests.image_sets import make_image_set, make_rows

ROWS = np.arange(40, dtype=np.int64)


@pytest.fixture(scope="module")
def images() -> ImageSet:
    """Forty training images and five others; every pixel of an image is its row."""
    plain = make_image_set(
        [
            *make_rows("train", {"bkl": 10, "mel": 10, "nv": 20}),
            *make_rows("test", {"bkl": 1, "mel": 1, "nv": 3}),
        ]
    )
    pixels = plain.pixels.copy()
    pixels[:] = np.arange(len(pixels), dtype=np.uint8)[:, np.newaxis, np.newaxis, np.newaxis]
    return replace(plain, pixels=pixels)


def read_epoch(
    images: ImageSet,
    *,
    epoch: int = 0,
    seed: int = 1,
    batch_size: int = 8,
    probabilities: NDArray[np.float64] | None = None,
    augment: Any = keep_images,
    mixtures: tuple[Any, ...] = (),
    rows: NDArray[np.int64] = ROWS,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return pixels [steps, B, S, S, 3] and targets [steps, B, C] of an epoch."""
    batches = TrainingBatches(
        images,
        rows,
        np.eye(3, dtype=np.float32)[images.targets],
        probabilities,
        batch_size=batch_size,
        augment=augment,
        mixtures=mixtures,
        seed=seed,
    ).epoch(epoch)
    pixels, targets = zip(*batches.as_numpy_iterator(), strict=True)
    return np.stack(pixels), np.stack(targets)


def read_rows(images: ImageSet, **options: Any) -> NDArray[np.int64]:
    """Return which rows an epoch is made of, in their order."""
    return read_epoch(images, **options)[0][..., 0, 0, 0].astype(np.int64).ravel()


def test_batches_are_float_pixels_and_shares_of_the_classes(images: ImageSet) -> None:
    pixels, targets = read_epoch(images)
    assert pixels.shape == (5, 8, 8, 8, 3)
    assert pixels.dtype == np.float32
    assert targets.shape == (5, 8, 3)
    assert targets.dtype == np.float32
    assert set(np.unique(targets)) == {0, 1}


def test_every_target_belongs_to_its_pixels(images: ImageSet) -> None:
    pixels, targets = read_epoch(images)
    rows = pixels[..., 0, 0, 0].astype(np.int64)
    np.testing.assert_array_equal(images.targets[rows], targets.argmax(axis=2))
    assert (np.ptp(pixels, axis=(2, 3, 4)) == 0).all()


def test_the_same_epoch_gives_the_same_batches(images: ImageSet) -> None:
    np.testing.assert_array_equal(read_rows(images, epoch=3), read_rows(images, epoch=3))


@pytest.mark.parametrize("other", [{"epoch": 4}, {"seed": 2}])
def test_another_epoch_or_seed_gives_another_order(images: ImageSet, other: dict[str, int]) -> None:
    first = read_rows(images, epoch=3)
    second = read_rows(images, **{"epoch": 3, **other})
    assert not np.array_equal(first, second)
    np.testing.assert_array_equal(np.sort(first), np.sort(second))


def test_a_shuffled_epoch_takes_every_image_once(images: ImageSet) -> None:
    np.testing.assert_array_equal(np.sort(read_rows(images)), ROWS)


def test_what_makes_no_whole_batch_is_left_to_other_epochs(images: ImageSet) -> None:
    taken = [read_rows(images, batch_size=16, epoch=epoch) for epoch in range(6)]
    assert all(len(set(rows)) == len(rows) == 32 for rows in taken)
    assert set(np.concatenate(taken)) == set(ROWS)


def test_only_the_rows_that_are_given_are_taken(images: ImageSet) -> None:
    some = ROWS[5:21]
    assert set(read_rows(images, rows=some)) == set(some)


def test_images_are_drawn_as_often_as_they_should(images: ImageSet) -> None:
    weights = np.where(images.targets[ROWS] == 2, 1.0, 4.0)  # 20 nv weigh 20, 20 others 80
    drawn = np.concatenate(
        [
            read_rows(images, probabilities=weights / weights.sum(), epoch=epoch)
            for epoch in range(50)
        ]
    )
    share = np.mean(images.targets[drawn] == 2)
    deviation = np.sqrt(0.2 * 0.8 / len(drawn))
    assert abs(share - 0.2) < 4 * deviation
    assert abs(share - 0.5) > 4 * deviation  # an even draw would be seen
    counts = np.bincount(drawn, minlength=40)
    assert counts[ROWS].min() > 0


def test_an_image_of_no_probability_is_not_drawn(images: ImageSet) -> None:
    probabilities = np.zeros(40)
    probabilities[[7, 9]] = 0.5
    assert set(read_rows(images, probabilities=probabilities)) == {7, 9}


def test_augmentation_gets_another_seed_at_every_step_and_the_same_again(images: ImageSet) -> None:
    tf = import_tensorflow()

    def write_seed(pixels: Any, seed: Any) -> Any:
        return tf.zeros_like(pixels) + tf.cast(seed[0] * 100 + seed[1], tf.float32)

    def read_seeds(epoch: int) -> list[float]:
        pixels, _ = read_epoch(images, augment=write_seed, epoch=epoch)
        return [float(value) for value in pixels[:, 0, 0, 0, 0]]

    assert read_seeds(2) == read_seeds(2)
    assert len({*read_seeds(2), *read_seeds(3)}) == 10


def test_fewer_images_than_a_batch_are_refused(images: ImageSet) -> None:
    with pytest.raises(DataError, match="are fewer than one batch of 41; reduce train"):
        read_epoch(images, batch_size=41)


def test_a_mixture_gets_images_targets_and_a_seed_of_its_own(images: ImageSet) -> None:
    def darken(pixels: Any, targets: Any, seed: Any) -> tuple[Any, Any]:
        return pixels * 0 + tf.cast(seed[1] // 2**24, tf.float32), targets * 0.5

    tf = import_tensorflow()
    pixels, targets = read_epoch(images, mixtures=(darken, darken))
    assert (pixels == 2).all()  # the second mixture's number
    assert (targets.max(axis=2) == 0.25).all()


def mean_colors(pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
    """A teacher whose prediction shows what it was shown: the means of the three channels."""
    return np.asarray(pictures.mean(axis=(1, 2)), np.float32)


@pytest.mark.parametrize("size", [8, 4])
def test_a_teacher_sees_each_augmented_and_mixed_image(images: ImageSet, size: int) -> None:
    def darken(pictures: Any, seed: Any) -> Any:
        return pictures / 2 + 10

    def swap(pictures: Any, targets: Any, seed: Any) -> tuple[Any, Any]:
        return pictures[::-1], targets[::-1]

    batches = TrainingBatches(
        images, ROWS, np.eye(3, dtype=np.float32)[images.targets], None, batch_size=8,
        augment=darken, mixtures=[swap], teach=mean_colors, size=size, seed=1,
    )  # fmt: skip
    for pictures, targets in batches.epoch(0).as_numpy_iterator():
        assert pictures.shape == (8, size, size, 3)
        assert targets.shape == (8, 6)
        np.testing.assert_allclose(targets[:, 3:], pictures.mean(axis=(1, 2)), atol=0.51)
        rows = np.round((pictures[:, 0, 0, 0] - 10) * 2).astype(int)
        np.testing.assert_array_equal(targets[:, :3].argmax(axis=1), images.targets[rows])


@pytest.mark.parametrize("size", [8, 4])
@pytest.mark.parametrize("taught", [True, False])
def test_larger_training_pictures_are_augmented_as_they_are(
    images: ImageSet, taught: bool, size: int
) -> None:
    """A teacher sees them whole, the network in its own size; in smaller epochs both shrink."""
    chessboard = np.indices((16, 24)).sum(axis=0) % 2 == 0
    shades = np.arange(len(images.pixels))[:, np.newaxis, np.newaxis, np.newaxis]
    pictures = np.where(chessboard[..., np.newaxis], shades, 200).astype(np.uint8)
    large = replace(images, training_pixels=np.broadcast_to(pictures, (*pictures.shape[:3], 3)))
    seen, shown = [], []

    def look(pixels: Any, seed: Any) -> Any:
        seen.append(tuple(pixels.shape))
        return pixels[:, :, :16] if taught else keep_images(pixels, seed)

    def teach(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        shown.append(np.ptp(pixels, axis=(1, 2)).min())
        return mean_colors(pixels)

    batches = TrainingBatches(
        large, ROWS, np.eye(3, dtype=np.float32)[images.targets], None, batch_size=8,
        augment=look, teach=teach if taught else None, size=size, seed=1,
    )  # fmt: skip
    for pixels, _ in batches.epoch(0).as_numpy_iterator():
        assert pixels.shape == (8, size, size, 3)
    height = 16 if taught or size == 8 else 8
    assert seen == [(8, height, height * 3 // 2, 3)]
    assert all(contrast > 100 for contrast in shown)
