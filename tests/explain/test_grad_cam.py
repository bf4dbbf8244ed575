"""The formula, by hand: weights from gradients, positive evidence alone, scaled to its peak."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from lesiontk.explain.grad_cam import FloatArray, combine_maps, compute_heatmaps, upsample_maps

NUMBERS = st.floats(-100, 100, width=32)


def draw(*shape: int, seed: int = 0) -> FloatArray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def test_maps_are_weighted_by_their_mean_gradient_and_cut_off_at_zero() -> None:
    features, gradients = draw(2, 3, 4, 5), draw(2, 3, 4, 5, seed=1)
    expected = np.zeros((2, 3, 4))
    for image in range(2):
        for map_ in range(5):
            weight = sum(gradients[image, :, :, map_].ravel()) / 12  # equation 1
            expected[image] += weight * features[image, :, :, map_]
    expected = np.where(expected > 0, expected, 0)  # equation 2
    received = combine_maps(features, gradients)
    assert received.dtype == np.float32
    np.testing.assert_allclose(received, expected, atol=1e-6)
    without_mean = np.maximum((features * gradients).sum(axis=3), 0)
    assert np.abs(received - without_mean).max() > 0.1  # the comparison sees another formula


def test_an_image_is_not_changed_by_the_others_of_its_batch() -> None:
    features, gradients = draw(3, 2, 2, 4), draw(3, 2, 2, 4, seed=1)
    together = compute_heatmaps(features, gradients, 8)
    for row in range(3):
        alone = compute_heatmaps(features[row : row + 1], gradients[row : row + 1], 8)
        np.testing.assert_allclose(alone[0], together[row], atol=1e-6)


def test_shapes_that_do_not_fit_are_a_bug_of_the_caller() -> None:
    with pytest.raises(ValueError, match="expected"):
        combine_maps(draw(2, 3, 3, 5), draw(2, 3, 3, 4))


def test_where_everything_speaks_against_the_class_the_heatmap_is_zero_and_not_nan() -> None:
    features = np.abs(draw(2, 3, 3, 4))
    gradients = np.full_like(features, -1)
    gradients[1] = 1
    heatmaps = compute_heatmaps(features, gradients, 12)
    assert not heatmaps[0].any()
    assert heatmaps[1].max() == 1


@given(
    arrays(np.float32, (2, 3, 2, 3), elements=NUMBERS),
    arrays(np.float32, (2, 3, 2, 3), elements=NUMBERS),
)
def test_heatmaps_lie_between_0_and_1(features: FloatArray, gradients: FloatArray) -> None:
    heatmaps = compute_heatmaps(features, gradients, 7)
    assert heatmaps.dtype == np.float32
    assert heatmaps.shape == (2, 7, 7)
    assert np.isfinite(heatmaps).all()
    assert (heatmaps >= 0).all()
    assert set(heatmaps.max(axis=(1, 2))) <= {0.0, 1.0}


def test_between_the_centres_of_the_cells_values_are_interpolated() -> None:
    maps = np.array([[[0, 1], [2, 3]]], np.float32)
    (upsampled,) = upsample_maps(maps, 4)
    ends = np.array([0, 0.25, 0.75, 1])
    np.testing.assert_allclose(upsampled, 2 * ends[:, np.newaxis] + ends)


@given(arrays(np.float32, (1, 3, 5), elements=NUMBERS))
def test_upsampling_turns_with_the_map(maps: FloatArray) -> None:
    upsampled = upsample_maps(maps, 9)
    turned = upsample_maps(maps.transpose(0, 2, 1), 9)
    np.testing.assert_allclose(turned, upsampled.transpose(0, 2, 1), rtol=1e-5, atol=1e-4)
    assert upsampled.min() >= maps.min() - 1e-4
    assert upsampled.max() <= maps.max() + 1e-4


def test_a_map_as_large_as_the_image_stays_as_it_is() -> None:
    maps = draw(2, 6, 6)
    np.testing.assert_allclose(upsample_maps(maps, 6), maps, atol=1e-6)
