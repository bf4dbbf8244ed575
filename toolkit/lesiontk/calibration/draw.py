"""Drawing of calibration images from the training subset, with a proof of disjointness."""

from __future__ import annotations

import csv
import os
from collections import Counter, defaultdict, deque
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from lesiontk.data.images import ImageSet
from lesiontk.data.sources.table import read_table
from lesiontk.errors import DataError, LeakageError, UsageError, suggest


class SplitImages(Protocol):
    """The images of a split to compare with, each with its lesion, pixels and subset."""

    @property
    def image_ids(self) -> tuple[str, ...]: ...
    @property
    def groups(self) -> tuple[str, ...]: ...
    @property
    def hashes(self) -> tuple[str, ...]: ...

    def indices(self, subset: str) -> NDArray[np.int64]:
        """Return the rows of one subset."""


def draw_calibration(
    images: ImageSet,
    count: int,
    draw: Literal["balanced", "natural"],
    seed: int,
    levels: Sequence[Sequence[str]] = (),
) -> NDArray[np.int64]:
    """Return `count` rows of the training split, no lesion twice.

    ``balanced`` gives every class an equal share if it has enough lesions, ``natural`` its share of
    the split (at least one). `levels` contains, for each axis to cover within a class, the level of
    every image (such as its body site), [axes][N].
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
            f"calibration requires {count} images, each of a different lesion; the training split "
            f"has {total} lesions. Request at most that, with --set calibration.images={total}."
        )
    share = share_naturally if draw == "natural" else share_equally
    wanted = share(np.array([len(queue) for queue in queues]), count)
    taken: list[Counter[str]] = [Counter() for _ in levels]
    chosen: list[int] = []
    for index in np.argsort(
        wanted, kind="stable"
    ):  # small classes first: a large class can balance them
        chosen += cover_levels(queues[index], int(wanted[index]), levels, taken)
    return np.array(sorted(chosen), dtype=np.int64)


def cover_levels(
    queue: Sequence[int],
    count: int,
    levels: Sequence[Sequence[str]],
    taken: Sequence[Counter[str]],
) -> list[int]:
    """Return `count` rows of `queue`, each with the levels that were taken least often.

    Minimization over the marginals of all axes (Pocock and Simon, Biometrics 31, 1975): first
    within this draw, then over the counts `taken` of earlier draws, which are updated; then in the
    queue's order.
    """
    rows_of: dict[tuple[str, ...], deque[tuple[int, int]]] = defaultdict(deque)
    for position, row in enumerate(queue):
        rows_of[tuple(axis[row] for axis in levels)].append((position, row))
    within: list[Counter[str]] = [Counter() for _ in levels]

    def order(names: tuple[str, ...]) -> tuple[int, int, int]:
        within_draw, overall = (
            sum(counter[name] for counter, name in zip(counters, names, strict=True))
            for counters in (within, taken)
        )
        return within_draw, overall, rows_of[names][0][0]

    chosen = []
    for _ in range(count):
        names = min((names for names, rows in rows_of.items() if rows), key=order)
        chosen.append(rows_of[names].popleft()[1])
        for counters in (within, taken):
            for counter, name in zip(counters, names, strict=True):
                counter[name] += 1
    return chosen


def share_equally(sizes: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """Return how many of each class to take, [C]; the total is `count` <= the sum of `sizes` [C].

    One of each class in turn, while it has any left.
    """
    taken = np.zeros_like(sizes)
    while taken.sum() < count:
        for label in np.flatnonzero(taken < sizes)[: count - int(taken.sum())]:
            taken[label] += 1
    return taken


def share_naturally(sizes: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """Return how many of each class to take, [C]; the total is `count` <= the sum of `sizes` [C].

    Every class with images gets one if `count` suffices; then the class furthest below its share.
    """
    share = count * sizes / sizes.sum()
    taken = np.minimum(sizes, 1 if count >= np.count_nonzero(sizes) else 0)
    while taken.sum() < count:
        taken[np.where(taken < sizes, share - taken, -np.inf).argmax()] += 1
    return taken


def select_listed(images: SplitImages, ids: Sequence[str]) -> NDArray[np.int64]:
    """Return the rows of the listed images; `DataError` for an unknown id or one listed twice."""
    rows = {image_id: row for row, image_id in enumerate(images.image_ids)}
    unknown = [image_id for image_id in ids if image_id not in rows]
    if unknown:
        raise DataError(
            f"{len(unknown)} image(s) of the calibration list are not in the data: "
            f"{', '.join(unknown[:3])}. Draw your own list (leave calibration.list empty)."
        )
    image_id, times = Counter(ids).most_common(1)[0]
    if times > 1:
        raise DataError(
            f"the calibration list contains {image_id} {times} times; expected each image once."
        )
    return np.array(sorted(rows[image_id] for image_id in ids), dtype=np.int64)


def list_names() -> tuple[str, ...]:
    """Return the names of the packaged lists."""
    folder = resources.files("lesiontk.calibration_lists")
    names = (entry.name for entry in folder.iterdir())
    return tuple(sorted(name.removesuffix(".csv") for name in names if name.endswith(".csv")))


def read_list(name_or_path: str) -> list[str]:
    """Return the image ids of a packaged list, or of a CSV file with a column ``image_id``."""
    return [row["image_id"] for row in read_list_rows(name_or_path)]


def read_list_rows(name_or_path: str) -> list[dict[str, str]]:
    """Return the rows of a packaged list, or of a CSV file with a column ``image_id``."""
    folder = resources.files("lesiontk.calibration_lists")
    known = list_names()
    if name_or_path in known:
        text = folder.joinpath(f"{name_or_path}.csv").read_text()
        rows = list(csv.DictReader(text.splitlines()))
    elif os.path.lexists(name_or_path):
        rows = [dict(row.cells) for row in read_table(Path(name_or_path)).rows]
    else:
        raise UsageError(
            f"unknown calibration list {name_or_path!r}; known are {', '.join(known) or 'none'}, "
            f"or specify the path of a CSV file.{suggest(name_or_path, known)}"
        )
    if not rows or "image_id" not in rows[0]:
        raise DataError(f"calibration list {name_or_path} has no column image_id, or no row.")
    return rows


def prove_disjoint(images: SplitImages, rows: NDArray[np.int64]) -> dict[str, int]:
    """Return subset -> number of images compared; `LeakageError` if a calibration image is of one.

    Image ids, lesions and known pixel hashes are compared with validation and test.
    """
    compared = {}
    for subset in ("validation", "test"):
        others = images.indices(subset)
        compared[subset] = len(others)
        for what, names in (
            ("image", images.image_ids),
            ("lesion", images.groups),
            ("pixels", images.hashes),
        ):
            other_names = {names[row]: images.image_ids[row] for row in others if names[row]}
            shared = {
                names[row]: images.image_ids[row] for row in rows if names[row] in other_names
            }
            if shared:
                name, image_id = min(shared.items())
                raise LeakageError(
                    f"{len(shared)} calibration image(s) share their {what} with the {subset} "
                    f"split ({image_id} of the list and {other_names[name]} of {subset}: {name}); "
                    "calibrate on training images only."
                )
    return compared
