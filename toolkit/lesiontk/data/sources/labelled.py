"""Images in one folder with a table anywhere, for ``evaluate --images DIR --labels CSV``."""

from __future__ import annotations

from pathlib import Path

from lesiontk.data.sources.csv_table import locate_by_name, table_listing
from lesiontk.data.sources.ham10000 import ham10000_listing
from lesiontk.data.sources.image_index import index_images
from lesiontk.data.sources.isic import DIAGNOSES, isic_listing
from lesiontk.data.sources.listing import source_table_from_listing
from lesiontk.data.sources.source import NOT_STATED, SourceTable
from lesiontk.data.sources.table import read_table


def read_labelled_folder(images: Path, labels: Path) -> SourceTable:
    """Return the images below `images` that the table `labels` describes.

    The table is HAM10000's metadata, an ISIC one-hot ground truth (with lesion ids from a table
    beside it, if any) or any table that the source ``csv`` reads. Listed images that are not in the
    folder count as missing.
    """
    table = read_table(labels)
    names: dict[str, str] = {}
    index = index_images(images)
    columns = set(table.columns)
    if {"image_id", "dx", "lesion_id"} <= columns:
        listed = ham10000_listing(table)
    elif "image" in columns and len(columns & set(DIAGNOSES)) > 1:
        listed = isic_listing(table, labels.parent)[0]
    else:
        listed, names = table_listing(table)
    return source_table_from_listing(
        listed,
        index,
        locate=lambda image: locate_by_name(index, names.get(image.row, image.image_id), image.row),
        licence=NOT_STATED,
        citation=NOT_STATED,
        metadata_sha256=table.sha256,
    )
