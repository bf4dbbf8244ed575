"""Pictures of one scene have near hashes, pictures of two have not; all near pairs are found."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from lesiontk.data.similarity import BITS, find_near_pairs, hash_difference, hash_pixels
from lesiontk.data.sources.synthesis import render_view

Pixels = NDArray[np.uint8]
NEAR, FAR = 24, 72  # of 256 bits
LESIONS = [("mel", 3), ("nv", 11), ("bkl", 4), ("vasc", 8)]


def picture(diagnosis: str, lesion: int) -> Pixels:
    return render_view(diagnosis, lesion, 0, 160)


def resized(image: Pixels) -> Pixels:
    return np.asarray(Image.fromarray(image).resize((112, 112), Image.Resampling.BILINEAR))


def brightened(image: Pixels) -> Pixels:
    return np.clip(image * 1.06 + 4, 0, 255).astype(np.uint8)


def recompressed(image: Pixels) -> Pixels:
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "JPEG", quality=60)
    return np.asarray(Image.open(stream))


def distance(one: Pixels, two: Pixels) -> int:
    """Bits that differ, counted one by one."""
    a, b = hash_difference(one), hash_difference(two)
    return sum((int(x) ^ int(y)).bit_count() for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("change", [resized, brightened, recompressed])
@pytest.mark.parametrize(("diagnosis", "lesion"), LESIONS)
def test_a_copy_that_was_changed_a_little_is_near(
    change: object, diagnosis: str, lesion: int
) -> None:
    image = picture(diagnosis, lesion)
    copy = change(image)  # type: ignore[operator]
    assert hash_pixels(copy) != hash_pixels(image)
    assert distance(image, copy) <= NEAR


def test_another_lesion_is_not_near() -> None:
    """The twin of the test above."""
    images = [picture(*lesion) for lesion in LESIONS]
    for i, one in enumerate(images):
        for two in images[:i]:
            assert distance(one, two) > FAR


def test_a_mirrored_picture_is_not_near() -> None:
    image = picture("mel", 3)
    assert distance(image, image[:, ::-1].copy()) > FAR


def test_the_hash_says_where_brightness_falls() -> None:
    falling = np.repeat(np.linspace(255, 0, 17 * 4, dtype=np.uint8)[None, :, None], 64, 0)
    falling = np.ascontiguousarray(np.repeat(falling, 3, 2))
    rising = np.ascontiguousarray(falling[:, ::-1])
    assert [int(word) for word in hash_difference(falling)] == [2**64 - 1] * 4
    assert [int(word) for word in hash_difference(rising)] == [0] * 4
    assert distance(falling, rising) == BITS


def test_the_pixel_hash_follows_every_byte_and_the_shape() -> None:
    image = np.zeros((4, 6, 3), np.uint8)
    changed = image.copy()
    changed[3, 5, 2] = 1
    hashes = {hash_pixels(a) for a in (image, changed, image.reshape(6, 4, 3))}
    assert len(hashes) == 3
    assert hash_pixels(image) == hash_pixels(image.copy())
    assert all(len(name) == 64 for name in hashes)


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 2**32),
    count=st.integers(0, 40),
    limit=st.integers(0, 140),
)
def test_all_near_pairs_are_found_nearest_first(seed: int, count: int, limit: int) -> None:
    hashes = np.random.default_rng(seed).integers(0, 2**64, (count, 4), np.uint64)
    hashes[count // 2 :] = hashes[: count - count // 2]  # equal ones too
    expected = []
    for i in range(count):
        for j in range(i + 1, count):
            bits = sum((int(a) ^ int(b)).bit_count() for a, b in zip(*hashes[[i, j]], strict=True))
            if bits <= limit:
                expected.append((i, j, bits))
    assert find_near_pairs(hashes, limit) == sorted(expected, key=lambda p: (p[2], p[0], p[1]))


def test_pairs_are_found_across_blocks_of_rows() -> None:
    hashes = np.random.default_rng(0).integers(0, 2**64, (600, 4), np.uint64)
    hashes[599] = hashes[10]
    hashes[300] = hashes[20] ^ np.uint64(0b101)
    assert find_near_pairs(hashes, 8) == [(10, 599, 0), (20, 300, 8)]
