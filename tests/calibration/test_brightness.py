"""Brightness is the mean luma, and its bands are quarters of the training images."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from lesiontk.calibration.brightness import BANDS, band_edges, measure_luma, name_band


def test_the_luma_of_known_colours() -> None:
    colours = [(0, 0, 0), (255, 255, 255), (255, 0, 0), (0, 255, 0), (0, 0, 255), (10, 20, 30)]
    pixels = np.array([np.full((4, 4, 3), colour, np.uint8) for colour in colours])
    received = measure_luma(pixels, range(len(colours)))
    expected = [0, 255, 0.2126 * 255, 0.7152 * 255, 0.0722 * 255, 2.126 + 14.304 + 2.166]
    assert received == pytest.approx(expected)


def test_only_the_asked_rows_are_measured_in_their_order() -> None:
    pixels = np.stack([np.full((2, 2, 3), n, np.uint8) for n in (5, 9, 200)])
    assert measure_luma(pixels, [2, 0]) == pytest.approx([200, 5])


def test_bands_are_quarters() -> None:
    luma = np.random.default_rng(0).permutation(np.arange(100.0))
    edges = band_edges(luma)
    assert Counter(name_band(value, edges) for value in luma) == dict.fromkeys(BANDS, 25)
    assert name_band(-1.0, edges) == "darkest"
    assert name_band(255.0, edges) == "brightest"


def test_images_of_one_brightness_share_a_band() -> None:
    edges = band_edges(np.full(7, 12.0))
    assert name_band(12.0, edges) == "darkest"
