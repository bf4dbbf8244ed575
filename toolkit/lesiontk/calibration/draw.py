"""Drawing calibration images from the training split, proving that they are from nowhere else."""

from __future__ import annotations

import csv
from collections import Counter
from importlib import resources
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from lesiontk.data.images import ImageSet
from lesiontk.errors import DataError, LeakageError, UsageError, suggest


def draw_calibration(
    images: ImageSet, count: int, draw: Literal["balanced", "natural"], seed: int
) -> NDArray[np.int64]:
    """Return `count` rows of the training split, no lesion twice.

    ``balanced`` gives every class an equal share as far as its lesions reach, ``natural`` the share
    it has in the split (and one at least).
    """
    order = np.random.default_rng(seed).permutation(images.indices("train"))
    seen: set[str] = set()
    queues: list[list[int]] = [[] for _ in images.labels]
    for row in order:
        if images.groups[row] not in seen:
            seen.add(images.groups[row])
            queues[images.targets[row]].append(int(row))
    total = sum(len(queue) for queue in queues)
    if count > total:
        raise DataError(
            f"calibration asks for {count} images; the training split has {total} lesions. Lower "
            "calibration.images."
        )
    if draw == "natural":
        wanted = share_naturally(np.array([len(queue) for queue in queues]), count)
        chosen = [row for queue, n in zip(queues, wanted, strict=True) for row in queue[:n]]
        return np.array(sorted(chosen), dtype=np.int64)
    chosen = []
    while len(chosen) < count:
        for queue in queues:
            if queue and len(chosen) < count:
                chosen.append(queue.pop(0))
    return np.array(sorted(chosen), dtype=np.int64)


def share_naturally(sizes: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """Return how many of each class to take, [C], in all `count` <= the sum of `sizes` [C].

    Every class that has any gets one, if `count` reaches; then always the class furthest below its
    share.
    """
    share = count * sizes / sizes.sum()
    taken = np.minimum(sizes, 1 if count >= np.count_nonzero(sizes) else 0)
    while taken.sum() < count:
        taken[np.where(taken < sizes, share - taken, -np.inf).argmax()] += 1
    return taken


def select_listed(images: ImageSet, ids: list[str]) -> NDArray[np.int64]:
    """Return the rows of the listed images; `DataError` for an unknown id or one listed twice."""
    rows = {image_id: row for row, image_id in enumerate(images.image_ids)}
    unknown = [image_id for image_id in ids if image_id not in rows]
    if unknown:
        raise DataError(
            f"{len(unknown)} image(s) of the calibration list are not in the data: "
            f"{', '.join(unknown[:3])}. Draw a list of your own (leave calibration.list empty)."
        )
    image_id, times = Counter(ids).most_common(1)[0]
    if times > 1:
        raise DataError(
            f"the calibration list names {image_id} {times} times; expected each image once."
        )
    return np.array(sorted(rows[image_id] for image_id in ids), dtype=np.int64)


def read_list(name_or_path: str) -> list[str]:
    """Return the image ids of a shipped list, or of a CSV file with a column ``image_id``."""
    folder = resources.files("lesiontk.calibration_lists")
    known = [entry.name.removesuffix(".csv") for entry in folder.iterdir()
             if entry.name.endswith(".csv")]  # fmt: skip
    if name_or_path in known:
        text = folder.joinpath(f"{name_or_path}.csv").read_text()
    elif Path(name_or_path).is_file():
        text = Path(name_or_path).read_text()
    else:
        raise UsageError(
            f"unknown calibration list {name_or_path!r}; known are {', '.join(known) or 'none'}, "
            f"or give the path of a CSV file.{suggest(name_or_path, known)}"
        )
    rows = list(csv.DictReader(text.splitlines()))
    if not rows or "image_id" not in rows[0]:
        raise DataError(f"calibration list {name_or_path} has no column image_id, or no row.")
    return [row["image_id"] for row in rows]


def prove_disjoint(images: ImageSet, rows: NDArray[np.int64]) -> dict[str, int]:
    """Return side -> number of images compared; `LeakageError` if a calibration image is of one.

    Compared are image ids, lesions and pixel hashes, against validation and test.
    """
    compared = {}
    for side in ("validation", "test"):
        others = images.indices(side)
        compared[side] = len(others)
        for what, names in (
            ("image", images.image_ids),
            ("lesion", images.groups),
            ("pixels", images.hashes),
        ):
            shared = {names[row] for row in rows} & {names[row] for row in others}
            if shared:
                raise LeakageError(
                    f"{len(shared)} calibration image(s) share their {what} with the {side} split "
                    f"({sorted(shared)[0]}); calibrate on training images only."
                )
    return compared
