"""A folder of images with a table of their labels, for ``run.py evaluate``."""

from __future__ import annotations

import csv
import difflib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lesiontk.data.image_container import DICOM_SUFFIXES, FORMAT_FROM_SUFFIX

IMAGE = ("image", "image_id", "image_name", "isic_id", "file", "filename", "file_name", "path")
LABEL = ("label", "dx", "diagnosis", "class")
LESION = ("lesion_id", "lesion", "patient_id", "patient")
SUFFIXES = (*FORMAT_FROM_SUFFIX, *DICOM_SUFFIXES)


class TableError(Exception):
    """The table of labels cannot be used."""

    exit_code = 2


@dataclass(frozen=True)
class LabelledImage:
    """An image file, the index of its label, and the lesion or patient that it shows."""

    name: str
    path: Path
    truth: int
    lesion: str


def read_labelled_folder(
    folder: Path, table: Path, labels: Sequence[str]
) -> tuple[list[LabelledImage], list[str]]:
    """Return the images of a CSV in its order, and the names of those without a file.

    A column is named as in `IMAGE`, one as in `LABEL`, and one may be as in `LESION`; an image may
    be named without its suffix, and may be in a subfolder. Raises `TableError` naming what is
    wrong, and the nearest label for an unknown one.
    """
    rows = _read_rows(table)
    image, label = (_find_column(table, rows[0], names) for names in (IMAGE, LABEL))
    lesion = next((name for name in LESION if name in rows[0]), image)
    files = _index_files(folder)
    found, missing, seen = [], [], set()
    for number, row in enumerate(rows, 2):
        name = row[image].strip()
        if name in seen:
            raise TableError(f"{table}, line {number}: {name} is a duplicate; keep one line of it")
        seen.add(name)
        truth = _find_label(row[label].strip(), labels, f"{table}, line {number}")
        path = files.get(name)
        if path is None:
            missing.append(name)
        else:
            found.append(LabelledImage(name, path, truth, row[lesion].strip() or name))
    if not found:
        raise TableError(
            f"{table} lists {len(rows)} images; none is in {folder}. Expected files named as in "
            f"its column {image}, for example {rows[0][image].strip()}.jpg"
        )
    return found, missing


def _read_rows(table: Path) -> list[dict[str, str]]:
    try:
        with table.open(encoding="utf-8-sig", newline="") as stream:
            rows = [
                {(key or "").strip().lower(): value or "" for key, value in row.items() if key}
                for row in csv.DictReader(stream)
            ]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise TableError(f"{table} cannot be read: {error}; expected a CSV in UTF-8") from error
    if not rows:
        raise TableError(f"{table} has no rows; expected a header and a row for each image")
    return rows


def _find_column(table: Path, row: dict[str, str], names: Sequence[str]) -> str:
    for name in names:
        if name in row:
            return name
    raise TableError(
        f"{table} has the columns {', '.join(row)}; expected one of {', '.join(names)}"
    )


def _find_label(value: str, labels: Sequence[str], where: str) -> int:
    if value in labels:
        return list(labels).index(value)
    near = difflib.get_close_matches(value, labels, 1, 0.5)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise TableError(f"{where}: received {value!r}; expected one of {', '.join(labels)}.{hint}")


def _index_files(folder: Path) -> dict[str, Path]:
    """Return every way to name an image of the folder: its path below it, its name, its stem."""
    if not folder.is_dir():
        raise TableError(f"{folder} is not a folder; expected a folder of images")
    found: dict[str, Path] = {}
    for directory, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            path = Path(directory, name)
            if path.suffix.lower() in SUFFIXES:
                for key in (path.relative_to(folder).as_posix(), name, path.stem):
                    found.setdefault(key, path)
    return found
