"""The images of a published engine's split, decoded as its input."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import click
import numpy as np

from lesiontk.api.progress import make_progress
from lesiontk.data.decode import ImageError
from lesiontk.data.images import ImageSet
from lesiontk.data.preprocess import preprocess_image
from lesiontk.data.reader import ImageReader, decode_many
from lesiontk.data.sources import SOURCES
from lesiontk.data.tasks import load_task
from lesiontk.records import EngineSpec, ImageRecord
from lesiontk.stages.known_splits import find_split


def list_published(split_hash: str, name: str, data: Path) -> list[tuple[ImageRecord, str]]:
    """Return the records of HAM10000 in `data` with their subset in the split of `name`.

    Raises `ClickException` as `find_published_split`.
    """
    subsets = find_published_split(split_hash, name)
    listed = SOURCES.get("ham10000")().read(data).records
    return [(row, subset) for row in listed if (subset := subsets.get(row.image_id))]


def find_published_split(split_hash: str, name: str) -> Mapping[str, str]:
    """Return image -> subset. Raises `ClickException` for a split that lesiontk does not have."""
    split = find_split(split_hash, [])
    if split is None:
        raise click.ClickException(f"the split of {name} is not among those of lesiontk.")
    return split.images


def name_lesion(record: ImageRecord) -> str:
    """Return the lesion that an image counts with; an image without one counts alone."""
    return record.lesion_id or record.image_id


def read_published_images(
    spec: EngineSpec, name: str, data: Path, keep: Callable[[ImageRecord, str], bool]
) -> ImageSet:
    """Return the images of HAM10000 in `data` that `keep` selects by record and subset.

    In an order drawn with a fixed seed. `name` is for messages and progress.
    """
    task = load_task(spec.task)
    listed = list_published(spec.split_hash, name, data)
    drawn = np.random.default_rng(0).permutation(len(listed))
    chosen = [row for row in (listed[number] for number in drawn) if keep(*row)]
    records = [record for record, _ in chosen]
    with (
        ImageReader(data) as reader,
        make_progress().task(f"{name}: decoding", len(records)) as advance,
    ):
        decoded = []
        for _, image in decode_many(
            reader,
            records,
            workers=2,
            transform=lambda picture: preprocess_image(picture, spec.preprocessing),
            advance=advance,
        ):
            if isinstance(image, ImageError):
                raise image
            decoded.append(image)
    return ImageSet(
        pixels=np.stack(decoded),
        targets=np.array([task.label_index(record.diagnosis) for record in records]),
        image_ids=tuple(record.image_id for record in records),
        groups=tuple(name_lesion(record) for record in records),
        hashes=(),
        subsets=tuple(subset for _, subset in chosen),
        labels=task.labels,
        task=task.name,
        critical=task.critical,
        preprocessing=spec.preprocessing,
        split_hash=spec.split_hash,
    )
