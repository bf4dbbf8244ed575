"""Stage: inspection of every image of a source, with broken and duplicate ones recorded."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from pydantic import Field

from lesiontk.data.decode import ImageError
from lesiontk.data.duplicates import Duplicates, find_duplicates
from lesiontk.data.image_table import InspectedImage, NearPair, UnreadableImage
from lesiontk.data.inspection import Ages, BrokenImage, Inspection
from lesiontk.data.reader import ImageReader, decode_many
from lesiontk.data.similarity import hash_difference, hash_pixels
from lesiontk.data.sources import SOURCES, detect_source
from lesiontk.data.sources.files import list_files
from lesiontk.data.sources.source import SourceTable
from lesiontk.document import read_table, write_table
from lesiontk.errors import DataError
from lesiontk.files.hashing import hash_document
from lesiontk.records import Artefact, ImageRecord
from lesiontk.stage import READING, Context, Stage, StageConfig, StageInfo, StageOutput

IMAGES, BROKEN, NEAR = "images.csv", "broken.csv", "near_duplicates.csv"


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
        needs=READING,
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
        read: list[InspectedImage] = []
        broken: list[UnreadableImage] = []
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
                    read.append(_image_row(record, result))
                    hashes.append(result[6:])
        hashed = np.array(hashes, np.uint64).reshape(len(read), -1)
        duplicates = find_duplicates(read, hashed, config.near_distance)
        images = [
            replace(image, copy_of=copy_of, alike=alike)
            for image, copy_of, alike in zip(read, duplicates.copies, duplicates.alike, strict=True)
        ]
        write_table(context.directory / IMAGES, InspectedImage, images)
        write_table(context.directory / BROKEN, UnreadableImage, broken)
        write_table(context.directory / NEAR, NearPair, duplicates.pairs)
        return StageOutput(_summarize(name, table, images, broken, duplicates).to_document())


def data_root(path: str | None, parents: Mapping[str, Artefact]) -> Path:
    """Return the folder of the images: the generated data set, or the specified folder."""
    if "dataset" in parents:
        return parents["dataset"].path
    if path is None:
        raise DataError("no data folder was specified; expected --data DIR.")
    return Path(path)


def read_inspection(artefact: Artefact) -> list[InspectedImage]:
    """Return the usable images."""
    return read_table(artefact.file(IMAGES), InspectedImage)


def _image_row(record: ImageRecord, result: Any) -> InspectedImage:
    age = record.age
    return InspectedImage(
        image_id=record.image_id,
        lesion_id=record.lesion_id,
        diagnosis=record.diagnosis,
        location=record.location,
        age=int(age) if age is not None and age.is_integer() else age,  # 55, not 55.0, in the table
        sex=record.sex,
        site=record.site,
        width=int(result[1]),
        height=int(result[0]),
        pixel_sha256=result[2:6].tobytes().hex(),
        patient_id=record.patient_id,
        coarser="|".join(record.coarser),
    )


def _broken_row(record: ImageRecord, error: ImageError) -> UnreadableImage:
    return UnreadableImage(
        image_id=record.image_id,
        location=record.location,
        reason=error.reason,
        message=str(error),
    )


def _describe_ages(ages: list[float]) -> Ages:
    if not ages:
        return Ages(0, None)
    low, middle, high = np.percentile(ages, [25, 50, 75]).tolist()
    return Ages(len(ages), (low, middle, high))


def _summarize(
    name: str,
    table: SourceTable,
    images: Sequence[InspectedImage],
    broken: Sequence[UnreadableImage],
    duplicates: Duplicates,
) -> Inspection:
    lesions: dict[str, Counter[str]] = defaultdict(Counter)
    for image in images:
        lesions[image.lesion_id or image.image_id][image.diagnosis] += 1
    return Inspection(
        **duplicates.counts.field_values(),
        source=name,
        licence=table.licence,
        citation=table.citation,
        lesion_ids_known=table.lesion_ids_known,
        images=len(images),
        lesions=len(lesions),
        patients=len({image.patient_id for image in images if image.patient_id}),
        lesions_with_several_images=sum(sum(c.values()) > 1 for c in lesions.values()),
        lesions_with_several_diagnoses=sum(len(c) > 1 for c in lesions.values()),
        images_by_diagnosis=dict(sorted(Counter(i.diagnosis for i in images).items())),
        lesions_by_diagnosis=dict(
            sorted(Counter(c.most_common(1)[0][0] for c in lesions.values()).items())
        ),
        broken=tuple(BrokenImage(b.image_id, b.reason) for b in broken),
        missing_files=tuple(table.missing),
        unlisted_files=table.unlisted,
        sizes=dict(Counter(f"{i.width}x{i.height}" for i in images).most_common(5)),
        age=_describe_ages([i.age for i in images if i.age is not None]),
        sex=dict(Counter(i.sex or "unknown" for i in images).most_common()),
        site=dict(Counter(i.site or "unknown" for i in images).most_common()),
    )
