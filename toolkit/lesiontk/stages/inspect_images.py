"""Stage: inspection of every image of a source, with broken and duplicate ones recorded."""

from __future__ import annotations

import csv
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from pydantic import Field

from lesiontk.data.decode import ImageError
from lesiontk.data.duplicates import PAIR_COLUMNS, Duplicates, find_duplicates
from lesiontk.data.images import write_rows
from lesiontk.data.inspection import Ages, BrokenImage, Inspection
from lesiontk.data.reader import ImageReader, decode_many
from lesiontk.data.similarity import hash_difference, hash_pixels
from lesiontk.data.sources import SOURCES, detect_source
from lesiontk.data.sources.files import list_files
from lesiontk.data.sources.source import SourceTable
from lesiontk.errors import DataError
from lesiontk.files.hashing import hash_document
from lesiontk.records import Artefact, ImageRecord
from lesiontk.stage import Context, Stage, StageConfig, StageInfo, StageOutput

IMAGES, BROKEN, NEAR = "images.csv", "broken.csv", "near_duplicates.csv"
COLUMNS = ("image_id", "lesion_id", "diagnosis", "location", "age", "sex", "site", "width",
           "height", "pixel_sha256", "patient_id", "coarser", "copy_of", "alike")  # fmt: skip


class InspectConfig(StageConfig):
    """The folder to inspect; its path on this machine is not part of the result."""

    source: str = "auto"
    path: str | None = Field(None, exclude=True)
    max_failures: float = Field(0.01, ge=0, le=1)
    near_distance: int = Field(
        16, ge=0, le=64, description="bits of 256 by which near-duplicates may differ"
    )


class InspectStage(Stage):
    """Produces the table of usable images with pixel hashes, and the faults of the others."""

    info: ClassVar[StageInfo] = StageInfo(
        name="inspect",
        version=3,
        accepts={"dataset": "dataset"},
        produces="inspection",
        config=InspectConfig,
        schema_version=Inspection.SCHEMA,
        tools=("Pillow", "numpy", "scipy"),
    )

    def external_inputs(self, config: InspectConfig) -> dict[str, str]:
        """Names, sizes and times of the files, which detect changes."""
        if config.path is None:
            return {}
        root = Path(config.path)
        if not root.is_dir():
            raise DataError(f"data folder {config.path} does not exist or is not a folder.")
        files = sorted(
            (path.relative_to(root).as_posix(), path.stat().st_size, path.stat().st_mtime_ns)
            for path in list_files(root)
        )
        return {"files": hash_document(files)}

    def run(
        self, parents: Mapping[str, Artefact], config: InspectConfig, context: Context
    ) -> StageOutput:
        root = data_root(config.path, parents)
        name = detect_source(root) if config.source == "auto" else config.source
        if "dataset" in parents:
            name = "synthetic"
        table = SOURCES.get(name)().read(root)
        rows: list[dict[str, object]] = []
        broken: list[dict[str, object]] = []
        hashes: list[Any] = []

        def examine(image: Any) -> Any:
            digest = np.frombuffer(bytes.fromhex(hash_pixels(image)), np.uint64)
            return np.concatenate(
                [np.array(image.shape[:2], np.uint64), digest, hash_difference(image)]
            )

        with (
            ImageReader(root) as reader,
            context.progress.task("checking images", len(table.records)) as advance,
        ):
            for index, result in decode_many(
                reader,
                table.records,
                workers=context.threads,
                transform=examine,
                advance=advance,
                max_failures=config.max_failures,
            ):
                record = table.records[index]
                if isinstance(result, ImageError):
                    broken.append(_broken_row(record, result))
                else:
                    rows.append(_image_row(record, result))
                    hashes.append(result[6:])
        hashed = np.array(hashes, np.uint64).reshape(len(rows), -1)
        duplicates = find_duplicates(rows, hashed, config.near_distance)
        for row, copy_of, alike in zip(rows, duplicates.copies, duplicates.alike, strict=True):
            row["copy_of"], row["alike"] = copy_of, alike
        write_rows(context.directory / IMAGES, rows, COLUMNS)
        write_rows(
            context.directory / BROKEN, broken, ("image_id", "location", "reason", "message")
        )
        write_rows(context.directory / NEAR, duplicates.pairs, PAIR_COLUMNS)
        return StageOutput(_summarize(name, table, rows, broken, duplicates).to_document())


def data_root(path: str | None, parents: Mapping[str, Artefact]) -> Path:
    """Return the folder of the images: the generated data set, or the specified folder."""
    if "dataset" in parents:
        return parents["dataset"].path
    if path is None:
        raise DataError("no data folder was specified; expected --data DIR.")
    return Path(path)


def read_inspection(artefact: Artefact) -> list[dict[str, str]]:
    """Return the rows of the usable images."""
    with artefact.file(IMAGES).open(newline="") as stream:
        return list(csv.DictReader(stream))


def _image_row(record: ImageRecord, result: Any) -> dict[str, object]:
    return {
        "image_id": record.image_id,
        "lesion_id": record.lesion_id or "",
        "diagnosis": record.diagnosis,
        "location": record.location,
        "age": "" if record.age is None else f"{record.age:g}",
        "sex": record.sex or "",
        "site": record.site or "",
        "width": int(result[1]),
        "height": int(result[0]),
        "pixel_sha256": result[2:6].tobytes().hex(),
        "patient_id": record.patient_id or "",
        "coarser": "|".join(record.coarser),
    }


def _broken_row(record: ImageRecord, error: ImageError) -> dict[str, object]:
    return {
        "image_id": record.image_id,
        "location": record.location,
        "reason": error.reason,
        "message": str(error),
    }


def _describe_ages(ages: list[float]) -> Ages:
    if not ages:
        return Ages(0, None)
    low, middle, high = np.percentile(ages, [25, 50, 75]).tolist()
    return Ages(len(ages), (low, middle, high))


def _summarize(
    name: str,
    table: SourceTable,
    rows: Sequence[Mapping[str, Any]],
    broken: Sequence[Mapping[str, object]],
    duplicates: Duplicates,
) -> Inspection:
    lesions: dict[str, Counter[str]] = defaultdict(Counter)
    for row in rows:
        lesions[row["lesion_id"] or row["image_id"]][row["diagnosis"]] += 1
    return Inspection(
        **duplicates.counts.field_values(),
        source=name,
        licence=table.licence,
        citation=table.citation,
        lesion_ids_known=table.lesion_ids_known,
        images=len(rows),
        lesions=len(lesions),
        patients=len({row["patient_id"] for row in rows if row["patient_id"]}),
        lesions_with_several_images=sum(sum(c.values()) > 1 for c in lesions.values()),
        lesions_with_several_diagnoses=sum(len(c) > 1 for c in lesions.values()),
        images_by_diagnosis=dict(sorted(Counter(r["diagnosis"] for r in rows).items())),
        lesions_by_diagnosis=dict(
            sorted(Counter(c.most_common(1)[0][0] for c in lesions.values()).items())
        ),
        broken=tuple(BrokenImage(str(b["image_id"]), str(b["reason"])) for b in broken),
        missing_files=tuple(table.missing),
        unlisted_files=table.unlisted,
        sizes=dict(Counter(f"{r['width']}x{r['height']}" for r in rows).most_common(5)),
        age=_describe_ages([float(row["age"]) for row in rows if row["age"]]),
        sex=dict(Counter(r["sex"] or "unknown" for r in rows).most_common()),
        site=dict(Counter(r["site"] or "unknown" for r in rows).most_common()),
    )
