"""Stage: a teacher's predictions for the training images, for all students of the same split.

They are computed once for all labels and image sizes of students.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from lesiontk.backends import find_backend, is_engine_file, open_engine
from lesiontk.backends.backend import Engine
from lesiontk.data.batches import Teach
from lesiontk.data.crop import crop_and_resize
from lesiontk.data.dealt_split import DealtSplit
from lesiontk.data.preprocess import preprocess_image
from lesiontk.data.reader import ImageReader, decode_all
from lesiontk.data.tasks import Task, sum_labels
from lesiontk.document import Record
from lesiontk.errors import DataError, UsageError
from lesiontk.files.hashing import hash_file
from lesiontk.records import Artefact, ImageRecord
from lesiontk.stage import ADDED_LATER, READING, Context, Stage, StageConfig, StageInfo, StageOutput
from lesiontk.stages.inspect_images import data_root
from lesiontk.stages.known_splits import check_own_split
from lesiontk.stages.parent_predictions import SOFT_TARGETS
from lesiontk.stages.split import list_records, read_split
from lesiontk.train.distillation import soften

FEATURES = "features.npy"
"""Pooled features, float32 [N, D]; zero for images outside of training."""


class TeacherPredictionsConfig(StageConfig):
    """The paths of teacher and images; their contents are in the key."""

    files: tuple[str, ...] = Field(exclude=True, min_length=1)
    path: str | None = Field(None, exclude=True)
    views: int = Field(4, json_schema_extra=ADDED_LATER)
    features: bool = Field(False, json_schema_extra=ADDED_LATER)


@dataclass(frozen=True, slots=True, kw_only=True)
class TeacherPredictions(Record):
    """The teacher, the number of training images, and whether it may have seen the test images."""

    SCHEMA: ClassVar[int] = 2

    teacher: str
    labels: tuple[str, ...]
    images: int
    split_hash: str
    pretraining: str
    may_have_seen_test: bool


class TeacherPredictionsStage(Stage):
    """Produces ``soft_targets.npy``: a teacher's probabilities for training images, in its own
    labels; and ``features.npy``, if asked for.

    The images have the teacher's input size.
    """

    info: ClassVar[StageInfo] = StageInfo(
        name="teacher_predictions",
        version=1,
        accepts={"split": "split", "inspection": "inspection", "dataset": "dataset"},
        produces="soft_targets",
        config=TeacherPredictionsConfig,
        schema_version=TeacherPredictions.SCHEMA,
        tools=("numpy", "opencv-python-headless", "Pillow"),
        needs=READING,
    )

    def check(self, config: TeacherPredictionsConfig) -> None:
        """Raise `DataError` if the file of a teacher does not exist."""
        for file in config.files:
            if not is_engine_file(file) or not Path(file).is_file():
                raise DataError(
                    f"the teacher {file} is not an engine file; expected the path of one, such as "
                    "keras_float32.keras in benchmarks/engines/RECIPE."
                )

    def external_inputs(self, config: TeacherPredictionsConfig) -> dict[str, str]:
        """The hashes of the teachers' files."""
        paths = [Path(file) for file in config.files]
        return {f"teacher{n or ''}": hash_file(p) for n, p in enumerate(paths) if p.is_file()}

    def list_tools(
        self, config: TeacherPredictionsConfig, parents: Mapping[str, Artefact]
    ) -> tuple[str, ...]:
        paths = [Path(file) for file in config.files]
        runtimes = [find_backend(p)().list_runtime_tools() for p in paths if p.is_file()]
        return (*self.info.tools, *(tool for runtime in runtimes for tool in runtime))

    def identify_parent(self, role: str, parent: Artefact) -> str:
        """Of the split only its subsets, because the labels are the student's."""
        return parent.read_facts(DealtSplit).split_hash if role == "split" else parent.content

    def run(
        self, parents: Mapping[str, Artefact], config: TeacherPredictionsConfig, context: Context
    ) -> StageOutput:
        dealt = parents["split"].read_facts(DealtSplit)
        table = read_split(parents["split"])
        records = list_records(table)
        rows = [row for row, image in enumerate(table) if image.subset == "train"]
        per_teacher = []
        features: NDArray[np.float32] | None = None
        with (
            open_teachers(config.files, dealt.split_hash, context.threads) as teachers,
            ImageReader(data_root(config.path, parents)) as reader,
            context.progress.task("running the teacher", len(rows) * len(teachers)) as advance,
        ):
            specs = [teacher.spec for teacher in teachers]
            if config.features:
                exposing, width = expose_features(teachers)
                features = np.zeros((len(table), width), np.float32)
            sum_labels(specs[0].labels, dealt.task)
            for teacher in teachers:
                probabilities = np.zeros((len(table), len(specs[0].labels)), np.float32)
                for first in range(0, len(rows), 256):
                    part = rows[first : first + 256]
                    pixels = _read(reader, [records[row] for row in part], teacher, context)
                    if features is not None and teacher is exposing:
                        probabilities[part], features[part] = run_exposed(
                            teacher, pixels, config.views
                        )
                    else:
                        probabilities[part] = run_teacher(teacher, pixels, config.views)
                    advance(len(part))
                per_teacher.append(probabilities)
        np.save(context.directory / SOFT_TARGETS, np.mean(per_teacher, axis=0, dtype=np.float32))
        if features is not None:
            np.save(context.directory / FEATURES, features)
        known = [str(spec.extra["pretraining"]) for spec in specs if "pretraining" in spec.extra]
        predictions = TeacherPredictions(
            teacher=" + ".join(f"{s.recipe} {s.backend}:{s.precision}" for s in specs),
            labels=specs[0].labels,
            images=len(rows),
            split_hash=dealt.split_hash,
            pretraining=" + ".join(known),
            may_have_seen_test=any(spec.may_have_seen_test for spec in specs),
        )
        return StageOutput(predictions.to_document())


@contextmanager
def open_teachers(
    files: Sequence[str], split_hash: str, threads: int
) -> Iterator[tuple[Engine, ...]]:
    """Open the engines of teachers.

    Raises `DataError` if one has another split than the student or other labels than the first.
    """
    with ExitStack() as stack:
        teachers = tuple(stack.enter_context(open_engine(file, threads=threads)) for file in files)
        labels = teachers[0].spec.labels
        for file, teacher in zip(files, teachers, strict=True):
            check_own_split("the teacher", teacher.spec.split_hash, split_hash)
            if teacher.spec.labels != labels:
                raise DataError(
                    f"the teacher {Path(file).name} has the labels "
                    f"{', '.join(teacher.spec.labels)}; expected those of the first teacher, "
                    f"{', '.join(labels)}."
                )
        yield teachers


def expose_features(teachers: Sequence[Engine]) -> tuple[Engine, int]:
    """Return the first teacher with features that can be read, and their width.

    Features of several networks have no common axes, so that their mean would mean nothing. Raises
    `UsageError` if no teacher has any.
    """
    for teacher in teachers:
        width = teacher.expose_features()
        if width:
            return teacher, width
    received = ", ".join(f"{t.spec.recipe} {t.spec.backend}:{t.spec.precision}" for t in teachers)
    raise UsageError(
        f"distill.losses compares pooled features, and no teacher exposes any: {received}; "
        "expected a keras:float32 engine, a model, or an encoder among them."
    )


def make_teach(
    teachers: Sequence[Engine],
    task: Task,
    temperature: float,
    views: int = 1,
    exposing: Engine | None = None,
) -> Teach:
    """Return a function from images uint8 [N, S, S, 3] to the teachers' mean soft targets [N, C].

    Images of another size than a teacher's input are resized to it. Each teacher's prediction is
    the mean over `views` of an image, as in `list_views`. The soft targets are followed by the
    pooled features of the teacher `exposing`, [N, C + D].
    """
    sums = sum_labels(teachers[0].spec.labels, task)  # `open_teachers` has compared the labels
    lock = threading.Lock()  # batches are made in several threads; engines run in one

    def teach(images: NDArray[np.uint8]) -> NDArray[np.float32]:
        predictions, features = [], []
        with lock:
            for teacher in teachers:
                pixels = _resize(images, teacher.spec.preprocessing.image_size)
                if teacher is exposing:
                    probabilities, exposed = run_exposed(teacher, pixels, views)
                    predictions.append(probabilities)
                    features.append(exposed)
                else:
                    predictions.append(run_teacher(teacher, pixels, views))
        soft = soften(np.mean(predictions, axis=0, dtype=np.float32) @ sums, temperature)
        return np.hstack([soft, *features])

    return teach


def _resize(images: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    if images.shape[1] == size:
        return images
    return np.stack([crop_and_resize(image, size, "stretch") for image in images])


def list_views(pixels: NDArray[np.uint8], count: int) -> Iterator[NDArray[np.uint8]]:
    """Yield `count` of the eight rotated and mirrored views of images [N, S, S, 3].

    The first is the images, the first four are mirrored, the others transposed, too.
    """
    views = (
        square[:, ::down, ::right]
        for square in (pixels, pixels.swapaxes(1, 2))
        for down in (1, -1)
        for right in (1, -1)
    )
    for view in islice(views, count):
        yield np.ascontiguousarray(view)


def run_teacher(teacher: Engine, pixels: NDArray[np.uint8], views: int = 4) -> NDArray[np.float32]:
    """Return the teacher's mean probabilities over `views` of each image, float32 [N, C]."""
    probabilities = [teacher.predict(view) for view in list_views(pixels, views)]
    return np.asarray(np.mean(probabilities, axis=0), np.float32)


def run_exposed(
    teacher: Engine, pixels: NDArray[np.uint8], views: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return probabilities as `run_teacher`, and the features' mean, float32 [N, D]."""
    both = [teacher.predict_features(view) for view in list_views(pixels, views)]
    probabilities, features = (np.mean(part, axis=0) for part in zip(*both, strict=True))
    return probabilities.astype(np.float32), features.astype(np.float32)


def _read(
    reader: ImageReader, records: list[ImageRecord], teacher: Engine, context: Context
) -> NDArray[np.uint8]:
    size = teacher.spec.preprocessing.image_size
    pixels = np.empty((len(records), size, size, 3), np.uint8)
    decoded = decode_all(
        reader,
        records,
        workers=context.threads,
        transform=lambda image: preprocess_image(image, teacher.spec.preprocessing),
    )
    for index, image in enumerate(decoded):
        pixels[index] = image
    return pixels
