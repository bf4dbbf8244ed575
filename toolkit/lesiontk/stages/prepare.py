"""Stage: every image of a split, decoded, cropped, resized and enhanced, in one array on disk."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field, field_validator

from lesiontk.data.dealt_split import DealtSplit
from lesiontk.data.decode import ImageError
from lesiontk.data.enhance import check_enhancements
from lesiontk.data.image_table import SplitImage
from lesiontk.data.images import (
    ARRAY,
    TABLE,
    TRAINING_ARRAY,
    PreparedImages,
    create_array,
)
from lesiontk.data.preprocess import preprocess_image
from lesiontk.data.reader import ImageReader, decode_many
from lesiontk.data.similarity import hash_pixels
from lesiontk.data.split import SplitItem, check_leakage
from lesiontk.data.training_picture import make_training_picture
from lesiontk.document import write_table
from lesiontk.errors import DataError
from lesiontk.records import Artefact, Preprocessing
from lesiontk.stage import ADDED_LATER, READING, Context, Stage, StageConfig, StageInfo, StageOutput
from lesiontk.stages.inspect_images import data_root
from lesiontk.stages.split import list_records, read_split


class PrepareConfig(StageConfig):
    """Size, crop and enhancement of the engine's input."""

    path: str | None = Field(None, exclude=True)
    image_size: int = Field(ge=16, le=1024)
    crop_mode: Literal["crop", "stretch"] = "crop"
    training_aspect: float = Field(1.0, ge=1, le=2, json_schema_extra=ADDED_LATER)
    training_size: int | None = Field(None, ge=16, le=1024, json_schema_extra=ADDED_LATER)
    enhance: tuple[str, ...] = ()
    max_failures: float = Field(0.01, ge=0, le=1)

    @field_validator("enhance")
    @classmethod
    def _refuse_unknown(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        check_enhancements(names)
        return names


class PrepareStage(Stage):
    """Produces ``images.npy`` uint8 [N, S, S, 3] and its table, in the order of image ids.

    With `training_aspect` above 1, or a `training_size` above S, also ``training.npy`` uint8
    [n, H, W, 3], in the same order: more, or larger, pictures of the training subset.
    """

    info: ClassVar[StageInfo] = StageInfo(
        name="prepare",
        version=4,
        accepts={"split": "split", "dataset": "dataset"},
        produces="images",
        config=PrepareConfig,
        schema_version=PreparedImages.SCHEMA,
        tools=("Pillow", "numpy", "opencv-python-headless"),
        needs=READING,
    )

    def run(
        self, parents: Mapping[str, Artefact], config: PrepareConfig, context: Context
    ) -> StageOutput:
        rows, split = read_split(parents["split"]), parents["split"].read_facts(DealtSplit)
        if not split.leaky:
            _refuse_leaks(rows)
        preprocessing = Preprocessing(config.image_size, config.crop_mode, enhance=config.enhance)
        records = list_records(rows)
        size = config.image_size
        array = create_array(context.directory / ARRAY, (len(rows), size, size, 3))
        aspect, height, wide = config.training_aspect, config.training_size or size, None
        training = [row for row, image in enumerate(rows) if image.subset == "train"]
        if aspect > 1 or height > size:
            shape = (len(training), height, round(height * aspect), 3)
            wide = create_array(context.directory / TRAINING_ARRAY, shape)
        places = {row: place for place, row in enumerate(training)}
        broken, changed = [], []

        def examine(image: Any) -> Any:
            digest = np.frombuffer(bytes.fromhex(hash_pixels(image)), np.uint8)
            parts = [digest, preprocess_image(image, preprocessing).ravel()]
            if wide is not None:
                parts.append(make_training_picture(image, height, aspect).ravel())
            return np.concatenate(parts)

        with (
            ImageReader(data_root(config.path, parents)) as reader,
            context.progress.task("preparing images", len(rows)) as advance,
        ):
            for index, result in decode_many(
                reader,
                records,
                workers=context.threads,
                transform=examine,
                advance=advance,
                max_failures=config.max_failures,
            ):
                if isinstance(result, ImageError):
                    broken.append(f"{rows[index].image_id} ({result.reason})")
                    continue
                digest, pixels, more = np.split(result, [32, 32 + array[index].size])
                array[index] = pixels.reshape(array[index].shape)
                if wide is not None and index in places:
                    wide[places[index]] = more.reshape(wide.shape[1:])
                if digest.tobytes().hex() != rows[index].pixel_sha256:
                    changed.append(rows[index].image_id)
        array.flush()
        if wide is not None:
            wide.flush()
        if broken:
            raise DataError(
                f"{len(broken)} image(s) could be read when the data was checked and cannot now: "
                f"{', '.join(broken[:5])}. Check the data folder and run `lesiontk data check`."
            )
        if changed:
            raise DataError(
                f"{len(changed)} image(s) have other pixels than when the data was checked and "
                f"split: {', '.join(changed[:5])}. Expected the same images: restore them, or "
                "train again, which checks and splits the current images."
            )
        write_table(context.directory / TABLE, SplitImage, rows)
        prepared = PreparedImages(
            images=len(rows),
            preprocessing=preprocessing,
            split_hash=split.split_hash,
            leaky=split.leaky,
            task=split.task,
            licence=split.licence,
            citation=split.citation,
        )
        return StageOutput(prepared.to_document())


def _refuse_leaks(rows: Sequence[SplitImage]) -> None:
    """Raise `LeakageError` if the table leaks: it may have been edited."""
    items = [
        SplitItem(r.image_id, r.lesion_id, r.label, r.pixel_sha256, patient_id=r.patient_id)
        for r in rows
    ]
    check_leakage(items, {r.image_id: r.subset for r in rows})
