"""Pictures of one scene have near hashes, pictures of two have not; all near pairs are found."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from lesiontk.data.similarity import (
    HASH_SIDE,
    LISTED_CLUSTER,
    cluster_near,
    hash_difference,
    hash_pixels,
    list_near_pairs,
)
from lesiontk.data.synthetic.dataset import render_view

Pixels = NDArray[np.uint8]
Hashes = NDArray[np.uint64]
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
    assert distance(falling, rising) == HASH_SIDE**2


def test_the_pixel_hash_follows_every_byte_and_the_shape() -> None:
    image = np.zeros((4, 6, 3), np.uint8)
    changed = image.copy()
    changed[3, 5, 2] = 1
    hashes = {hash_pixels(a) for a in (image, changed, image.reshape(6, 4, 3))}
    assert len(hashes) == 3
    assert hash_pixels(image) == hash_pixels(image.copy())
    assert all(len(name) == 64 for name in hashes)


def bits_between(one: Hashes, two: Hashes) -> int:
    """Bits that differ, counted one by one."""
    return sum((int(a) ^ int(b)).bit_count() for a, b in zip(one, two, strict=True))


def near_pairs_one_by_one(hashes: Hashes, limit: int) -> list[tuple[int, int, int]]:
    pairs = [
        (i, j, bits)
        for j in range(len(hashes))
        for i in range(j)
        if (bits := bits_between(hashes[i], hashes[j])) <= limit
    ]
    return sorted(pairs, key=lambda pair: (pair[2], pair[0], pair[1]))


def clusters_one_by_one(count: int, pairs: list[tuple[int, int, int]]) -> list[int]:
    """Labels that spread along the pairs until nothing changes."""
    label = list(range(count))
    for _ in range(count):
        for i, j, _bits in pairs:
            label[i] = label[j] = min(label[i], label[j])
    return label


def flip_bits(hashes: Hashes, count: int, rng: np.random.Generator) -> Hashes:
    """Flip `count` bits, drawn with replacement, of each."""
    hashes = hashes.copy()
    for _ in range(count):
        word, bit = rng.integers(0, 4, len(hashes)), rng.integers(0, 64, len(hashes))
        hashes[np.arange(len(hashes)), word] ^= np.uint64(1) << bit.astype(np.uint64)
    return hashes


@settings(max_examples=60)
@given(
    seed=st.integers(0, 2**32),
    count=st.integers(0, 40),
    originals=st.integers(1, 8),
    flips=st.integers(0, 20),
    limit=st.integers(0, 64),
)
def test_clusters_and_pairs_are_those_of_all_comparisons(
    seed: int, count: int, originals: int, flips: int, limit: int
) -> None:
    rng = np.random.default_rng(seed)
    base = rng.integers(0, 2**64, (originals, 4), np.uint64)
    hashes = flip_bits(base[rng.integers(0, originals, count)], flips, rng)
    pairs = near_pairs_one_by_one(hashes, limit)
    clusters = cluster_near(hashes, limit)
    assert clusters.tolist() == clusters_one_by_one(count, pairs)
    assert [tuple(pair) for pair in list_near_pairs(hashes, clusters, limit).tolist()] == pairs


@pytest.mark.parametrize("flips", [3, 9, 14])
def test_clusters_of_crowded_bands_are_those_of_all_comparisons(flips: int) -> None:
    """So many alike that the search through a band from image to image is taken, too."""
    rng = np.random.default_rng(flips)
    base = rng.integers(0, 2**64, (3, 4), np.uint64)
    hashes = flip_bits(np.repeat(base, 150, axis=0), flips, rng)
    near = np.bitwise_count(hashes[:, None] ^ hashes[None]).sum(2) <= 16
    reached = near.copy()
    while not ((wider := (reached.astype(int) @ near) > 0) == reached).all():
        reached = wider
    assert cluster_near(hashes, 16).tolist() == reached.argmax(1).tolist()


@pytest.mark.parametrize("flips", [0, 8])
def test_many_alike_pictures_are_one_cluster_without_a_list_of_pairs(flips: int) -> None:
    rng = np.random.default_rng(0)
    hashes = flip_bits(np.zeros((30_000, 4), np.uint64), flips, rng)
    clusters = cluster_near(hashes, 16)
    assert set(clusters.tolist()) == {0}
    assert len(list_near_pairs(hashes, clusters, 16)) == 0


def test_many_different_pictures_are_clusters_of_one() -> None:
    hashes = np.random.default_rng(0).integers(0, 2**64, (30_000, 4), np.uint64)
    hashes[29_999] = hashes[10] ^ np.uint64(1)
    clusters = cluster_near(hashes, 16)
    assert len(set(clusters.tolist())) == 29_999
    assert list_near_pairs(hashes, clusters, 16).tolist() == [[10, 29_999, 4]]


def test_the_largest_cluster_that_is_listed_has_all_its_pairs() -> None:
    for size, pairs in ((LISTED_CLUSTER, LISTED_CLUSTER * (LISTED_CLUSTER - 1) // 2),
                        (LISTED_CLUSTER + 1, 0)):  # fmt: skip
        hashes = np.zeros((size, 4), np.uint64)
        assert len(list_near_pairs(hashes, cluster_near(hashes, 16), 16)) == pairs
