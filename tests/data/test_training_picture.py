"""Training pictures: the network's square with more to its sides."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from lesiontk.data.crop import crop_and_resize
from lesiontk.data.training_picture import make_training_picture


def make_input(height: int, width: int) -> NDArray[np.uint8]:
    """Return smooth colors with noise."""
    rows, columns = np.mgrid[:height, :width]
    base = np.stack([3 * rows, 2 * columns, rows + columns], axis=2)
    noise = np.random.default_rng(0).integers(0, 8, base.shape)
    return (base + noise).clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize(
    ("height", "width"), [(48, 64), (48, 48), (48, 90), (64, 48), (47, 64), (31, 90)]
)
def test_a_training_picture_has_the_square_in_its_middle(height: int, width: int) -> None:
    image = make_input(height, width)
    picture = make_training_picture(image, 24, 4 / 3)
    assert picture.shape == (24, 32, 3)
    assert picture.dtype == np.uint8
    if height > width:  # transposed
        image = image.transpose(1, 0, 2)
    square = crop_and_resize(image, 24, "crop").astype(int)
    assert np.abs(picture[:, 4:28].astype(int) - square)[:, 1:-1].mean() < 6


def test_a_training_picture_is_mirrored_where_the_image_ends() -> None:
    picture = make_training_picture(make_input(24, 24), 24, 1.5)
    np.testing.assert_array_equal(picture[:, :6], picture[:, 6:12][:, ::-1])
    np.testing.assert_array_equal(picture[:, 6:30], make_input(24, 24))
