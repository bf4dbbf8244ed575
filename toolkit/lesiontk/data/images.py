"""Prepared images: one array on disk, its table, and the subsets of the split."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from lesiontk.data.image_table import SplitImage
from lesiontk.data.tasks import Task
from lesiontk.document import Record, read_table
from lesiontk.errors import DataError
from lesiontk.records import Artefact, Preprocessing
from lesiontk.system.disk import reserve_space

ARRAY = "images.npy"
TRAINING_ARRAY = "training.npy"
TABLE = "images.csv"


@dataclass(frozen=True, slots=True)
class PreparedImages(Record):
    """How many images of which split were prepared, how, and the terms of their source."""

    SCHEMA: ClassVar[int] = 2

    images: int
    preprocessing: Preprocessing
    split_hash: str
    leaky: bool
    task: Task
    licence: str
    citation: str


@dataclass(frozen=True, slots=True)
class ImageSet:
    """Prepared images in the order of their table.

    `pixels` is uint8 [N, S, S, 3] RGB, mapped from disk; `targets` are indices into `labels`.
    `training_pixels` is uint8 [n, H, W, 3]: the pictures of the training subset, in order, with
    more than the centered square, or in a size H above S; None where only `pixels` were prepared.
    """

    pixels: NDArray[np.uint8]
    targets: NDArray[np.int64]
    image_ids: tuple[str, ...]
    groups: tuple[str, ...]
    hashes: tuple[str, ...]
    subsets: tuple[str, ...]
    labels: tuple[str, ...]
    task: str
    critical: str
    preprocessing: Preprocessing
    split_hash: str
    training_pixels: NDArray[np.uint8] | None = None

    def indices(self, subset: str) -> NDArray[np.int64]:
        """Return the rows of one subset. Raises `DataError` if it is empty."""
        rows = np.array(
            [i for i, name in enumerate(self.subsets) if name == subset], dtype=np.int64
        )
        if len(rows) == 0:
            raise DataError(f"the {subset} subset of the split has no images.")
        return rows

    def training_source(self) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        """Return the pictures to train on, uint8 [n, H, W, 3], and the place of each row's, [N].

        A row outside of the training subset has no place of its own.
        """
        if self.training_pixels is None:
            return self.pixels, np.arange(len(self.pixels))
        return self.training_pixels, np.cumsum(np.array(self.subsets) == "train") - 1

    def draw_stratified(self, subset: str, count: int, seed: int) -> NDArray[np.int64]:
        """Return up to `count` rows of a subset, balanced over the classes where possible."""
        rows = self.indices(subset)
        order = np.random.default_rng(seed).permutation(rows)
        queues = [list(order[self.targets[order] == label]) for label in range(len(self.labels))]
        chosen: list[int] = []
        while len(chosen) < min(count, len(rows)):
            for queue in queues:
                if queue and len(chosen) < count:
                    chosen.append(int(queue.pop(0)))
        return np.array(sorted(chosen), dtype=np.int64)


def open_images(artefact: Artefact) -> ImageSet:
    """Return the images of an artefact made by the stage ``prepare``."""
    rows = read_table(artefact.file(TABLE), SplitImage)
    prepared = artefact.read_facts(PreparedImages)
    labels = prepared.task.labels
    pixels = np.load(artefact.file(ARRAY), mmap_mode="r")
    if len(pixels) != len(rows):
        raise DataError(f"{artefact.name}: {len(pixels)} images but {len(rows)} table rows.")
    return ImageSet(
        pixels=pixels,
        targets=np.array([labels.index(row.label) for row in rows], dtype=np.int64),
        image_ids=tuple(row.image_id for row in rows),
        groups=tuple(row.group for row in rows),
        hashes=tuple(row.pixel_sha256 for row in rows),
        subsets=tuple(row.subset for row in rows),
        labels=labels,
        task=prepared.task.name,
        critical=prepared.task.critical,
        preprocessing=prepared.preprocessing,
        split_hash=prepared.split_hash,
        training_pixels=_open_training(artefact),
    )


def _open_training(artefact: Artefact) -> NDArray[np.uint8] | None:
    if TRAINING_ARRAY not in artefact.manifest.files:
        return None
    return np.asarray(np.load(artefact.file(TRAINING_ARRAY), mmap_mode="r"))


def create_array(path: Path, shape: tuple[int, ...]) -> np.memmap[Any, np.dtype[np.uint8]]:
    """Return a new memory-mapped uint8 array of zeros whose disk space is reserved.

    Raises `MissingRequirementError` where the disk lacks space.
    """
    header = {"descr": "|u1", "fortran_order": False, "shape": shape}
    with path.open("wb") as stream:
        np.lib.format.write_array_header_1_0(stream, header)
        reserve_space(stream, path, stream.tell() + math.prod(shape))
    return np.lib.format.open_memmap(path, "r+")


def write_rows(path: Path, rows: Sequence[Mapping[str, object]], columns: tuple[str, ...]) -> None:
    """Write a CSV with these columns, even without rows."""
    with path.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
