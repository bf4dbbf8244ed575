"""A picture that can still be recognized below its colours, small, and the same each time."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from lesiontk.explain.overlay import EDGE, draw_overlay, encode_picture

PIXELS = np.random.default_rng(0).integers(0, 255, (40, 40, 3)).astype(np.uint8)


def test_the_more_evidence_the_lighter_the_picture() -> None:
    grey = np.full((5, 5, 3), 128, np.uint8)
    heatmap = np.tile(np.linspace(0, 1, 5, dtype=np.float32), (5, 1))
    overlay = draw_overlay(grey, heatmap)
    assert overlay.shape == grey.shape
    assert overlay.dtype == np.uint8
    lightness = overlay.astype(int) @ (299, 587, 114)
    assert (np.diff(lightness, axis=1) > 0).all()
    violet, yellow = overlay[0, 0].astype(int), overlay[0, 4].astype(int)
    assert violet[2] > violet[1]  # more blue than green
    assert yellow[0] > yellow[2] + 50
    assert yellow[1] > yellow[2] + 50


def test_the_image_is_seen_below_the_colours() -> None:
    even = draw_overlay(PIXELS, np.zeros((40, 40), np.float32)).astype(float).mean(axis=2)
    grey = PIXELS.astype(float) @ (0.299, 0.587, 0.114)
    assert np.corrcoef(even.ravel(), grey.ravel())[0, 1] > 0.99


def test_every_picture_has_the_same_size_and_equal_pixels_give_equal_bytes() -> None:
    content = encode_picture(PIXELS)
    assert content == encode_picture(PIXELS.copy())
    assert content != encode_picture(PIXELS[::-1])
    with Image.open(io.BytesIO(content)) as picture:
        assert picture.format == "JPEG"
        assert picture.size == (EDGE, EDGE)
    assert not picture.getexif()
