"""One folder for each class, as in image tools and hand-made collections."""

from __future__ import annotations

import os
import re
from pathlib import Path, PurePosixPath
from typing import ClassVar

from lesiontk.data.sources.csv_table import described_tables, describes_images
from lesiontk.data.sources.files import list_files
from lesiontk.data.sources.ham10000 import ham10000_tables
from lesiontk.data.sources.image_index import (
    ImageIndex,
    index_images,
    unique_ids,
    without_suffix,
)
from lesiontk.data.sources.isic import IsicSource
from lesiontk.data.sources.listing import ListedImage, source_table_from_listing
from lesiontk.data.sources.source import NOT_STATED, Source, SourceInfo, SourceTable
from lesiontk.data.sources.table import TableFile, first_column, may_be_table, read_table
from lesiontk.errors import DataError
from lesiontk.files.hashing import hash_document

LESIONS_TABLE = "lesions.csv"
# Names of folders for a subset of a split or for all images, not for a class: train, val_dir,
# test_images.
_SIDE = r"(train(ing)?|val(id(ation)?)?|test(ing)?|eval(uation)?)"
_WORD = r"(dir|set|data|dataset|images?|imgs?|pictures?|photos?|folder|split|base|all|raw)"
_NO_CLASS = re.compile(
    rf"(({_SIDE}|{_WORD})[-_ ]?)+\d*|masks?|segmentations?|(.*_)?(images?|imgs?)_part_\d+", re.I
)
_MAX_DEPTH = 4


class FolderSource(Source):
    """A layout in which the class of an image is the name of a folder above it.

    Folders for the subsets of a split (``train_dir``, ``val_dir``) may be above those of the
    classes. They are ignored: lesiontk splits by lesion.
    """

    info: ClassVar[SourceInfo] = SourceInfo(
        name="folder",
        description="Images of your own, sorted into folders",
        layout=(
            "two or more folders named after a diagnosis with images in them, directly or below "
            f"train and val folders, and optionally {LESIONS_TABLE} (image_id, lesion_id)"
        ),
    )

    def _detect(self, path: Path) -> bool:
        if described_tables(path) or ham10000_tables(path) or IsicSource().detect(path):
            return False
        index = index_images(path, archives=False)
        depth, classes = _class_folders(index)
        if len(classes) < 2 or any(map(_NO_CLASS.fullmatch, classes)):
            return False
        return not _has_table_beside(index, depth)

    def _read(self, path: Path) -> SourceTable:
        index = index_images(path, archives=False)
        depth, classes = _class_folders(index)
        if len(classes) < 2:
            named = f", {classes[0]}" if classes else ""
            raise self._layout_error(path, f"has images in {len(classes)} folder(s){named}")
        if wrong := [name for name in classes if _NO_CLASS.fullmatch(name)]:
            raise self._layout_error(
                path, f"has the folder(s) {', '.join(wrong)}, which are not named after a diagnosis"
            )
        locations = [
            location
            for location in index.locations
            if len(PurePosixPath(location).parts) > depth + 1
        ]
        ids = unique_ids(locations)
        place = dict(zip(ids, locations, strict=True))
        lesions = _read_lesions(path, place)
        listed = [
            ListedImage(
                row=location,
                image_id=image_id,
                diagnosis=PurePosixPath(location).parts[depth].strip().lower(),
                lesion_id=lesions.pop(image_id, None),
            )
            for image_id, location in zip(ids, locations, strict=True)
        ]
        listed += [ListedImage(LESIONS_TABLE, name, "", lesion) for name, lesion in lesions.items()]
        return source_table_from_listing(
            listed,
            index,
            locate=lambda image: place.get(image.image_id),
            licence=NOT_STATED,
            citation=NOT_STATED,
            metadata_sha256=hash_document([[i.row, i.lesion_id] for i in listed]),
        )


def _class_folders(index: ImageIndex) -> tuple[int, list[str]]:
    """Return the depth of the class folders and their names.

    Skips folders that are not named after a class, and a single folder that contains all others.
    """
    parts = [PurePosixPath(location).parts[:-1] for location in index.locations]
    for depth in range(_MAX_DEPTH):
        names = sorted({folders[depth] for folders in parts if len(folders) > depth})
        deeper = any(len(folders) > depth + 1 for folders in parts)
        wrapper = len(names) == 1 or all(map(_NO_CLASS.fullmatch, names))
        if not (wrapper and deeper):
            break
    return depth, names


def _has_table_beside(index: ImageIndex, depth: int) -> bool:
    """Return whether a table outside the class folders gives diagnoses; it has precedence."""
    classes = {PurePosixPath(location).parts[: depth + 1] for location in index.locations}
    return any(
        path.relative_to(index.root).parts[:-1][: depth + 1] not in classes
        and describes_images(TableFile(path))
        for path in list_files(index.root)
        if may_be_table(path.name)
    )


def _read_lesions(path: Path, place: dict[str, str]) -> dict[str, str]:
    """Return image id -> lesion id from the optional table; `place` is image id -> path."""
    if not os.path.lexists(path / LESIONS_TABLE):
        return {}
    table = read_table(path / LESIONS_TABLE)
    column = first_column(table.columns, ("image_id", "image"))
    if column is None or "lesion_id" not in table.columns:
        raise DataError(
            f"{table.path} has the columns {', '.join(table.columns)}; expected image_id and "
            "lesion_id. Rename the columns."
        )
    ids = {without_suffix(location): image_id for image_id, location in place.items()}
    lesions: dict[str, str] = {}
    for row in table.rows:
        name = without_suffix(table.required(row, column).replace("\\", "/"))
        image_id = ids.get(name, name)
        lesion = table.optional(row, "lesion_id")
        if lesion is not None and lesions.setdefault(image_id, lesion) != lesion:
            raise DataError(
                f"{table.where(row)}: {name} is of lesion {lesion!r} here and of "
                f"{lesions[image_id]!r} before; expected one lesion. Remove one of the rows."
            )
    return lesions
