"""The choice of some images of a subset: whole lesions, balanced over the classes."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def draw_lesions(
    labels: Sequence[str], groups: Sequence[str], count: int, seed: int
) -> NDArray[np.int64]:
    """Return the places of `count` or a few more of N images, int64 in ascending order.

    `labels` and `groups` are the classes and the lesions of the N images. The classes take turns; a
    turn adds all images of a lesion, chosen by `seed`. A lesion counts in the class of its first
    image. All images are returned where there are no more than `count`.
    """
    places: dict[str, list[int]] = defaultdict(list)
    for place, group in enumerate(groups):
        places[group].append(place)
    lesions = sorted(places)
    np.random.default_rng(seed).shuffle(lesions)
    queues: dict[str, deque[str]] = defaultdict(deque)
    for lesion in lesions:
        queues[labels[places[lesion][0]]].append(lesion)
    chosen: list[int] = []
    while len(chosen) < min(count, len(labels)):
        for label in sorted(queues):
            if queues[label] and len(chosen) < count:
                chosen += places[queues[label].popleft()]
    return np.array(sorted(chosen), dtype=np.int64)
