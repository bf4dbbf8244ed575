"""Stage: what a frozen image encoder makes of the training and validation images."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from lesiontk.backends.onnx.encoder import (
    EncoderInterface,
    build_feature_graph,
    open_feature_graph,
)
from lesiontk.data.augment import AUGMENTATIONS
from lesiontk.data.crop import crop_and_resize
from lesiontk.data.dealt_split import DealtSplit
from lesiontk.data.decode import RgbImage
from lesiontk.data.reader import ImageReader, decode_all
from lesiontk.data.training_picture import make_training_picture
from lesiontk.document import Record
from lesiontk.errors import DataError
from lesiontk.files.hashing import hash_file
from lesiontk.records import Artefact, ImageRecord
from lesiontk.stage import READING, Context, Stage, StageConfig, StageInfo, StageOutput
from lesiontk.stages.inspect_images import data_root
from lesiontk.stages.split import list_records, read_split
from lesiontk.system.frameworks import import_tensorflow

ENCODER = "encoder.onnx"
"""From ``image`` uint8 [N, S, S, 3] to ``features`` float32 [N, D]."""
TRAINING, VALIDATION = "training.npy", "validation.npy"
PART = 250
ASPECT = 4 / 3
"""Of the pictures that augmented views are cropped from."""


class EncodeConfig(StageConfig):
    """The encoder, and how many views of each training image it sees."""

    file: str = Field(exclude=True, description="an image encoder as ONNX")
    path: str | None = Field(None, exclude=True)
    image_size: int = Field(224, ge=16, le=1024, description="pixels a side of its input")
    pixels: str = Field("imagenet", description="range of its input, as of import --pixels")
    output: str = Field("", description="a tensor of its graph; default: the only output")
    pooling: str = Field("auto", description="none, class, mean or class_mean")
    views: int = Field(
        4, ge=1, le=100, description="of each training image: the plain one, then augmented ones"
    )
    augment: str = Field("dermoscopy", description="one of the registered augmentations")
    seed: int = Field(1, ge=0, lt=2**32, description="seed of the augmentation")


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodedImages(Record):
    """How many features the file `encoder` gave of each view of each training image."""

    encoder: str
    views: int
    images: int
    features: int
    split_hash: str


class EncodeStage(Stage):
    """Produces features of the training images, float16 [V, n, D], and of the validation images,
    [m, D], in the order of the split, and the encoder with its pixels and pooling.

    A run that was interrupted continues where it stopped, to within `PART` images.
    """

    info: ClassVar[StageInfo] = StageInfo(
        name="encode",
        version=1,
        accepts={"split": "split", "dataset": "dataset"},
        produces="features",
        config=EncodeConfig,
        tools=("onnx", "onnxruntime", "numpy", "Pillow", "opencv-python-headless"),
        needs=READING,
    )

    def check(self, config: EncodeConfig) -> None:
        """Raise `DataError` if the file is not there, `UsageError` for an unknown augmentation."""
        if not Path(config.file).is_file():
            raise DataError(f"the encoder {config.file} does not exist; expected an ONNX file.")
        AUGMENTATIONS.get(config.augment)

    def external_inputs(self, config: EncodeConfig) -> dict[str, str]:
        """The hash of the encoder's file."""
        path = Path(config.file)
        return {"encoder": hash_file(path)} if path.is_file() else {}

    def run(
        self, parents: Mapping[str, Artefact], config: EncodeConfig, context: Context
    ) -> StageOutput:
        import onnx

        interface = EncoderInterface(
            config.image_size, config.pixels, config.output, config.pooling
        )
        graph = build_feature_graph(Path(config.file), interface)
        onnx.save(graph, context.directory / ENCODER)
        table = read_split(parents["split"])
        training, validation = (
            [number for number, row in enumerate(table) if row.subset == subset]
            for subset in ("train", "validation")
        )
        with (
            ImageReader(data_root(config.path, parents)) as reader,
            context.progress.task(
                "encoding images", config.views * len(training) + len(validation)
            ) as advance,
        ):
            session = open_feature_graph(graph, context.threads)
            encoder = _Encoder(session, reader, list_records(table), context, advance)
            plain = partial(crop_and_resize, image_size=config.image_size, crop_mode="crop")
            np.save(context.directory / VALIDATION, encoder.encode("validation", validation, plain))
            views = [encoder.encode("view0", training, plain)]
            for view in range(1, config.views):
                change = partial(_augment, config=config, view=view)
                views.append(encoder.encode(f"view{view}", training, change))
            np.save(context.directory / TRAINING, np.stack(views))
        encoded = EncodedImages(
            encoder=Path(config.file).name,
            views=config.views,
            images=len(training),
            features=views[0].shape[1],
            split_hash=parents["split"].read_facts(DealtSplit).split_hash,
        )
        return StageOutput(encoded.to_document())


@dataclass(frozen=True, slots=True)
class _Encoder:
    """Runs the graph on pictures, part by part; a part that is whole is not computed again."""

    session: Any
    reader: ImageReader
    records: list[ImageRecord]
    context: Context
    advance: Callable[[int], None]

    def encode(
        self, name: str, rows: list[int], change: Callable[[RgbImage], NDArray[np.uint8]]
    ) -> NDArray[np.float16]:
        """Return the features of the pictures of these rows of the split, [len(rows), D]."""
        return np.concatenate(
            [
                self._encode_part(f"{name}-{first}", rows[first : first + PART], change)
                for first in range(0, len(rows), PART)
            ]
        )

    def _encode_part(
        self, name: str, rows: list[int], change: Callable[[RgbImage], NDArray[np.uint8]]
    ) -> NDArray[np.float16]:
        kept = self.context.scratch / f"{name}.npy"
        if kept.is_file():
            self.advance(len(rows))
            return np.asarray(np.load(kept))
        pictures = decode_all(
            self.reader,
            [self.records[row] for row in rows],
            workers=self.context.threads,
            transform=change,
            advance=self.advance,
        )
        features = np.asarray(
            [self.session.run(None, {"image": p[np.newaxis]})[0][0] for p in pictures], np.float16
        )
        temporary = kept.with_suffix(".part")
        with temporary.open("wb") as stream:
            np.save(stream, features)
        temporary.replace(kept)
        return features


def _augment(image: RgbImage, *, config: EncodeConfig, view: int) -> NDArray[np.uint8]:
    """Return one augmented view, which depends on the picture, the view and the seed alone."""
    picture = make_training_picture(image, config.image_size, ASPECT)
    digest = zlib.crc32(picture.tobytes()) & 0x7FFFFFFF
    tf = import_tensorflow()
    key = tf.constant([config.seed * 1009 + view & 0x7FFFFFFF, digest], tf.int32)
    augment = AUGMENTATIONS.get(config.augment)
    pixels = np.asarray(augment(tf.constant(picture[np.newaxis], tf.float32), key))[0]
    return np.asarray(np.round(pixels), np.uint8)
