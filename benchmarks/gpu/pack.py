"""Prepared images as they travel: JPEG or PNG in parts of at most 60 MB, and read back.

A pack is a folder with ``pack.json`` (what the images are, a row for each with its subset, label
and hash) and ``part-000.bin``, …, the files of the pictures one after the other.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lesiontk.errors import DataError

PACK, MANIFEST = "pack.json", "manifest.json"
PART_BYTES = 60 * 10**6
QUALITY = 95
SUBSETS = ("train", "validation")


@dataclass(frozen=True)
class Pictures:
    """The pictures of one subset: uint8 [n, S, W, 3] RGB, and the label of each."""

    pixels: NDArray[np.uint8]
    labels: tuple[str, ...]


@dataclass(frozen=True)
class TrainingImages:
    """Training pictures (W may exceed S) and validation images (W is S) of one split."""

    image_size: int
    split_hash: str
    train: Pictures
    validation: Pictures


@dataclass(frozen=True)
class _Prepared:
    """An ``images-…`` folder: its facts, and row and picture of each image by subset."""

    facts: dict[str, Any]
    rows: dict[str, list[dict[str, str]]]
    pixels: dict[str, NDArray[np.uint8]]


def read_images(folder: Path) -> TrainingImages:
    """Return the images of a pack, or of an ``images-…`` folder of a workspace.

    Raises `DataError` for another folder, and for a pack whose parts are missing or damaged.
    """
    if (folder / PACK).is_file():
        return _read_pack(folder)
    prepared = _read_prepared(folder)
    return TrainingImages(
        prepared.facts["preprocessing"]["image_size"],
        prepared.facts["split_hash"],
        *(
            Pictures(prepared.pixels[name], tuple(row["label"] for row in prepared.rows[name]))
            for name in SUBSETS
        ),
    )


def pack_images(folder: Path, out: Path, part_bytes: int = PART_BYTES) -> list[Path]:
    """Write the training and validation pictures of an ``images-…`` folder; returns the files.

    They are PNG, without loss, if all of them take `part_bytes` at most uncompressed, and JPEG of
    quality 95 otherwise. Raises `DataError` for another folder or one picture above `part_bytes`.
    """
    prepared = _read_prepared(folder)
    out.mkdir(parents=True, exist_ok=True)
    total = sum(pixels.nbytes for pixels in prepared.pixels.values())
    kind = "png" if total <= part_bytes else "jpeg"
    rows: list[dict[str, Any]] = []
    parts: list[bytearray] = []
    for subset in SUBSETS:
        encoded = _map(lambda picture: _encode(picture, kind), prepared.pixels[subset])
        for row, data in zip(prepared.rows[subset], encoded, strict=True):
            if len(data) > part_bytes:
                raise DataError(
                    f"{row['image_id']} takes {len(data)} bytes; expected at most the "
                    f"{part_bytes} of a part."
                )
            if not parts or len(parts[-1]) + len(data) > part_bytes:
                parts.append(bytearray())
            parts[-1] += data
            kept = {key: row[key] for key in ("image_id", "group", "label", "subset")}
            rows.append({**kept, "part": len(parts) - 1, "bytes": len(data), "sha256": _hash(data)})
    files = [out / f"part-{number:03d}.bin" for number in range(len(parts))]
    for file, part in zip(files, parts, strict=True):
        file.write_bytes(part)
    document = {
        "image_size": prepared.facts["preprocessing"]["image_size"],
        "split_hash": prepared.facts["split_hash"],
        "format": kind,
        "parts": [
            {"file": file.name, "sha256": _hash(part)}
            for file, part in zip(files, parts, strict=True)
        ],
        "rows": rows,
    }
    (out / PACK).write_text(json.dumps(document))
    return [out / PACK, *files]


def _read_prepared(folder: Path) -> _Prepared:
    if not (folder / MANIFEST).is_file() or not (folder / "images.npy").is_file():
        raise DataError(
            f"{folder} has neither {PACK} nor prepared images; expected a pack, or a folder "
            "images-… of a workspace."
        )
    facts = json.loads((folder / MANIFEST).read_text())["facts"]
    with (folder / "images.csv").open(newline="") as text:
        table = list(csv.DictReader(text))
    squares = np.load(folder / "images.npy", mmap_mode="r")
    rows, pixels = {}, {}
    for subset in SUBSETS:
        taken = [i for i, row in enumerate(table) if row["subset"] == subset]
        if not taken:
            raise DataError(f"{folder.name} has no {subset} images; expected some.")
        rows[subset], pixels[subset] = [table[i] for i in taken], squares[taken]
    if (folder / "training.npy").is_file():
        pixels["train"] = np.load(folder / "training.npy", mmap_mode="r")
        if pixels["train"].shape[1] != squares.shape[1]:
            raise DataError(
                f"{folder.name} has training pictures of {pixels['train'].shape[1]} pixels and "
                f"images of {squares.shape[1]}; expected none of another size: a GPU trains "
                "without data.training_size."
            )
    return _Prepared(facts, rows, pixels)


def _read_pack(folder: Path) -> TrainingImages:
    document = json.loads((folder / PACK).read_text())
    parts = []
    for part in document["parts"]:
        file = folder / part["file"]
        data = file.read_bytes() if file.is_file() else b""
        if _hash(data) != part["sha256"]:
            raise DataError(
                f"{file} is missing or damaged; expected the SHA-256 {part['sha256'][:12]}…: copy "
                "it again."
            )
        parts.append(memoryview(data))
    places, offsets = [], [0] * len(parts)
    for row in document["rows"]:
        start = offsets[row["part"]]
        offsets[row["part"]] += row["bytes"]
        places.append(parts[row["part"]][start : start + row["bytes"]])
    subsets = []
    for subset in SUBSETS:
        taken = [i for i, row in enumerate(document["rows"]) if row["subset"] == subset]
        pixels = np.stack(list(_map(_decode, [places[i] for i in taken])))
        labels = tuple(document["rows"][i]["label"] for i in taken)
        subsets.append(Pictures(pixels, labels))
    return TrainingImages(document["image_size"], document["split_hash"], *subsets)


def _map(function: Any, values: Sequence[Any] | NDArray[np.uint8]) -> Iterator[Any]:
    """Yield the results in order; Pillow leaves the interpreter's lock to other threads."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        yield from pool.map(function, values)


def _encode(picture: NDArray[np.uint8], kind: str) -> bytes:
    content = io.BytesIO()
    options = {"quality": QUALITY, "subsampling": 0} if kind == "jpeg" else {}
    Image.fromarray(np.asarray(picture)).save(content, kind, **options)
    return content.getvalue()


def _decode(data: memoryview) -> NDArray[np.uint8]:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def _hash(data: bytes | bytearray) -> str:
    return hashlib.sha256(data).hexdigest()
