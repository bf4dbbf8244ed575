"""The golden pictures are the same everywhere and tell the usual mistakes apart."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from lesiontk.evaluate.golden_images import COUNT, golden_images


@pytest.mark.parametrize("size", [16, 33, 96])
def test_they_have_the_shape_of_an_engines_input(size: int) -> None:
    images = golden_images(size)
    assert images.dtype == np.uint8
    assert images.shape == (COUNT, size, size, 3)
    assert len(np.unique(images.reshape(COUNT, -1), axis=0)) == COUNT


def test_they_never_change() -> None:
    """Engines' recorded answers to them would say nothing any more."""
    assert hashlib.sha256(golden_images(32).tobytes()).hexdigest() == (
        "7dfb6f7bf13efebdcfc4566e60db32b624ce759c6595322495276e78163d1545"
    )


def test_they_hold_the_extremes_and_every_colour() -> None:
    images = golden_images(64)
    assert (images[0] == 0).all()
    assert (images[1] == 255).all()
    for channel in range(3):
        others = [c for c in range(3) if c != channel]
        assert np.ptp(images[2 + channel, ..., channel].astype(int)) == 255
        assert (images[2 + channel][..., others] == 0).all()


def test_most_change_with_red_and_blue_exchanged_or_turned() -> None:
    images = golden_images(64)
    for damaged in (images[..., ::-1], images[:, :, ::-1], images.transpose(0, 2, 1, 3)):
        changed = (damaged != images).any(axis=(1, 2, 3))
        assert changed.sum() >= COUNT - 4
