"""Perceptual hashes and clusters of near-duplicate images. Plain NumPy and SciPy."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from PIL import Image

HASH_SIDE = 16
LISTED_CLUSTER = 64
"""Size of the largest cluster whose pairs are listed individually."""
_SMALL, _BLOCK = 64, 256


def hash_pixels(image: NDArray[np.uint8]) -> str:
    """Return the SHA-256 of an image's shape and pixels."""
    return hashlib.sha256(repr(image.shape).encode() + image.tobytes()).hexdigest()


def hash_difference(image: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """Return the 256-bit difference hash of uint8 [H, W, 3] as uint64 [4].

    Each bit is set if brightness falls from one cell of a 17 x 16 thumbnail to the next (N.
    Krawetz, "Kind of like that", 2013). Small changes of size, light or compression flip few bits.
    """
    grey = Image.fromarray(image).convert("L")
    cells = np.asarray(grey.resize((HASH_SIDE + 1, HASH_SIDE), Image.Resampling.BOX))
    bits = cells[:, 1:] < cells[:, :-1]
    return np.packbits(bits).view(">u8").astype(np.uint64)


def cluster_near(hashes: NDArray[np.uint64], max_distance: int) -> NDArray[np.int64]:
    """Return for each image the index of the first image of its cluster.

    Images at most `max_distance` of 256 bits apart are in one cluster, transitively. `hashes` is
    uint64 [N, 4]. The result is exact: two hashes this close are equal in at least
    one of ``max_distance + 1`` bands of bits (pigeonhole principle, as in Norouzi et al., "Fast
    exact search in Hamming space with multi-index hashing", 2014), so only images that share a band
    and are not yet in one cluster are compared.
    """
    if len(hashes) == 0:
        return np.zeros(0, np.int64)
    unique, inverse = np.unique(hashes, axis=0, return_inverse=True)
    labels = np.arange(len(unique))
    for keys in _bands(unique, max_distance + 1):
        order = np.argsort(keys, kind="stable")
        starts = np.flatnonzero(np.diff(keys[order], prepend=keys[order[0]] + 1))
        sizes = np.diff(starts, append=len(order))
        edges = [_edges_nearby(unique, labels, keys, order[np.repeat(sizes <= _SMALL, sizes)],
                               max_distance)]  # fmt: skip
        edges += [
            _edges_of_bucket(unique, labels, order[start : start + size], max_distance)
            for start, size in zip(starts[sizes > _SMALL], sizes[sizes > _SMALL], strict=True)
        ]
        labels = _join(labels, np.concatenate(edges))
    members = labels[inverse.ravel()]
    _, first, cluster = np.unique(members, return_index=True, return_inverse=True)
    return first[cluster].astype(np.int64)


def list_near_pairs(
    hashes: NDArray[np.uint64], clusters: NDArray[np.int64], max_distance: int
) -> NDArray[np.int64]:
    """Return int64 [P, 3], (i, j, bits that differ) for i < j, nearest first.

    `clusters` is what `cluster_near` returned for the same arguments. Clusters with more than
    `LISTED_CLUSTER` images are left out, so P is at most ``LISTED_CLUSTER / 2 * N``.
    """
    order = np.argsort(clusters, kind="stable")
    starts = np.flatnonzero(np.diff(clusters[order], prepend=-1))
    found = [np.zeros((0, 3), np.int64)]
    for members in np.split(order, starts[1:]):
        if not 2 <= len(members) <= LISTED_CLUSTER:
            continue
        distance = np.bitwise_count(hashes[members][:, None] ^ hashes[members][None]).sum(2)
        i, j = np.nonzero(np.triu(distance <= max_distance, 1))
        found.append(np.stack([members[i], members[j], distance[i, j]], 1).astype(np.int64))
    pairs = np.concatenate(found)
    return pairs[np.lexsort((pairs[:, 1], pairs[:, 0], pairs[:, 2]))]


def _bands(hashes: NDArray[np.uint64], number: int) -> Iterator[NDArray[np.int64]]:
    """Yield for each band a key [N]: equal keys are equal bits.

    A band takes every `number`-th bit. Neighbouring bits are correlated, so bands of adjacent bits
    would put most images under a few keys.
    """
    bits = np.unpackbits(hashes.astype(">u8").view(np.uint8), axis=1)
    for band in range(number):
        packed = np.packbits(bits[:, band::number], axis=1)
        yield np.unique(packed, axis=0, return_inverse=True)[1].ravel()


def _edges_nearby(
    hashes: NDArray[np.uint64],
    labels: NDArray[np.int64],
    keys: NDArray[np.int64],
    order: NDArray[np.int64],
    max_distance: int,
) -> NDArray[np.int64]:
    """Return [E, 2], the near pairs of images with one key; `order` sorts them by key."""
    edges = [np.zeros((0, 2), np.int64)]
    for step in range(1, _SMALL):
        one, two = order[:-step], order[step:]
        same = keys[one] == keys[two]
        if not same.any():
            break
        same &= labels[one] != labels[two]
        one, two = one[same], two[same]
        near = np.bitwise_count(hashes[one] ^ hashes[two]).sum(1) <= max_distance
        edges.append(np.stack([one[near], two[near]], 1))
    return np.concatenate(edges)


def _edges_of_bucket(
    hashes: NDArray[np.uint64],
    labels: NDArray[np.int64],
    bucket: NDArray[np.int64],
    max_distance: int,
) -> NDArray[np.int64]:
    """Return [E, 2] near pairs that connect the near images of a large bucket.

    A breadth-first search: reached images are not compared again, so that a bucket of duplicates
    costs one comparison for each image.
    """
    edges = [np.zeros((0, 2), np.int64)]
    waiting = bucket
    while len(np.unique(labels[waiting])) > 1:
        reached, waiting = waiting[:1], waiting[1:]
        while len(reached) and len(waiting):
            block, reached = reached[:_BLOCK], reached[_BLOCK:]
            distance = np.zeros((len(block), len(waiting)), np.uint16)
            for word in range(hashes.shape[1]):
                distance += np.bitwise_count(hashes[block, None, word] ^ hashes[waiting, word])
            near = (distance <= max_distance) | (labels[block][:, None] == labels[waiting])
            by = near.argmax(0)
            new = near[by, np.arange(len(waiting))]
            edges.append(np.stack([block[by[new]], waiting[new]], 1))
            reached, waiting = np.concatenate([reached, waiting[new]]), waiting[~new]
    return np.concatenate(edges)


def _join(labels: NDArray[np.int64], edges: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return labels in which both ends of each edge are equal."""
    from scipy.sparse import coo_matrix  # not at the top, where every --help would load it
    from scipy.sparse.csgraph import connected_components

    size = len(labels)
    ends = labels[edges]
    graph = coo_matrix((np.ones(len(ends), bool), (ends[:, 0], ends[:, 1])), (size, size))
    return np.asarray(connected_components(graph, directed=False)[1])[labels].astype(np.int64)
