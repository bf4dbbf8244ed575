"""Stage: what a teacher says of the training images, for all students of the same split.

It is asked once, whatever the labels and the image size of a student.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
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
from lesiontk.data.decode import ImageError
from lesiontk.data.preprocess import preprocess_image
from lesiontk.data.reader import ImageReader, decode_many
from lesiontk.data.tasks import Task
from lesiontk.document import Record
from lesiontk.errors import DataError
from lesiontk.files.hashing import hash_file
from lesiontk.records import Artefact, EngineSpec, ImageRecord
from lesiontk.stage import Context, Stage, StageConfig, StageInfo, StageOutput
from lesiontk.stages.inspect_images import data_root
from lesiontk.stages.parent_predictions import SOFT_TARGETS
from lesiontk.stages.split import list_records, read_split
from lesiontk.train.distillation import soften


class TeacherPredictionsConfig(StageConfig):
    """Where teacher and images lie; what they are is in the key."""

    files: tuple[str, ...] = Field(exclude=True, min_length=1)
    path: str | None = Field(None, exclude=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class TeacherPredictions(Record):
    """Whose probabilities of how many training images, and what the teacher may have seen."""

    SCHEMA: ClassVar[int] = 2

    teacher: str
    labels: tuple[str, ...]
    images: int
    split_hash: str
    pretraining: str
    may_have_seen_test: bool


class TeacherPredictionsStage(Stage):
    """Produces ``soft_targets.npy``: a teacher's probabilities, in its own labels, of training
    images.

    It sees the pictures at its own input size.
    """

    info: ClassVar[StageInfo] = StageInfo(
        name="teacher_predictions",
        version=1,
        accepts={"split": "split", "inspection": "inspection", "dataset": "dataset"},
        produces="soft_targets",
        config=TeacherPredictionsConfig,
        schema_version=TeacherPredictions.SCHEMA,
        tools=("numpy", "opencv-python-headless", "Pillow"),
    )

    def check(self, config: TeacherPredictionsConfig) -> None:
        """The teachers' files must be there."""
        for file in config.files:
            if not is_engine_file(file) or not Path(file).is_file():
                raise DataError(
                    f"the teacher {file} is no engine file; expected the path of one, such as "
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
        """Of the split its subsets alone: the labels are the student's."""
        return parent.read_facts(DealtSplit).split_hash if role == "split" else parent.content

    def run(
        self, parents: Mapping[str, Artefact], config: TeacherPredictionsConfig, context: Context
    ) -> StageOutput:
        dealt = parents["split"].read_facts(DealtSplit)
        table = read_split(parents["split"])
        records = list_records(table)
        rows = [row for row, image in enumerate(table) if image["subset"] == "train"]
        said = []
        with (
            open_teachers(config.files, dealt.split_hash, context.threads) as teachers,
            ImageReader(data_root(config.path, parents)) as reader,
            context.progress.task("teacher predictions", len(rows) * len(teachers)) as advance,
        ):
            specs = [teacher.spec for teacher in teachers]
            sum_labels(specs[0].labels, dealt.task)
            for teacher in teachers:
                probabilities = np.zeros((len(table), len(specs[0].labels)), np.float32)
                for first in range(0, len(rows), 256):
                    part = rows[first : first + 256]
                    pictures = _read(reader, [records[row] for row in part], teacher, context)
                    probabilities[part] = ask_teacher(teacher, pictures)
                    advance(len(part))
                said.append(probabilities)
        np.save(context.directory / SOFT_TARGETS, np.mean(said, axis=0, dtype=np.float32))
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
    """Open the engines of teachers. Raises `DataError` for one of another split than the
    student's, or if their labels differ."""
    with ExitStack() as stack:
        teachers = tuple(stack.enter_context(open_engine(file, threads=threads)) for file in files)
        labels = teachers[0].spec.labels
        for file, teacher in zip(files, teachers, strict=True):
            check_split(teacher.spec, split_hash)
            if teacher.spec.labels != labels:
                raise DataError(
                    f"the teacher {Path(file).name} has the labels "
                    f"{', '.join(teacher.spec.labels)}; expected those of the first teacher, "
                    f"{', '.join(labels)}."
                )
        yield teachers


def make_teach(teachers: Sequence[Engine], task: Task, temperature: float) -> Teach:
    """Return a function from images uint8 [N, S, S, 3] to the teachers' mean soft targets [N, C].

    Images of another size than a teacher's input are resized to it.
    """
    lock = threading.Lock()  # batches are made in several threads; engines run in one

    def teach(pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
        with lock:
            said = [
                teacher.predict(_resize(pictures, teacher.spec.preprocessing.image_size))
                @ sum_labels(teacher.spec.labels, task)
                for teacher in teachers
            ]
        return soften(np.mean(said, axis=0, dtype=np.float32), temperature)

    return teach


def _resize(pictures: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    if pictures.shape[1] == size:
        return pictures
    return np.stack([crop_and_resize(picture, size, "stretch") for picture in pictures])


def check_split(teacher: EngineSpec, split_hash: str) -> None:
    """Raise `DataError` for a teacher of another split than the student's."""
    if teacher.split_hash != split_hash:
        raise DataError(
            f"the teacher was trained on the split {teacher.split_hash[:12]}; expected the "
            f"student's, {split_hash[:12]}: it may have learned the student's test images."
        )


def sum_labels(labels: tuple[str, ...], task: Task) -> NDArray[np.float32]:
    """Return how a teacher's labels add up to those of the student's task, float32 [theirs, its].

    A teacher of single diagnoses can teach a student who puts several into one label. Raises
    `DataError` for labels that the task does not know, or if none stands for one of its own.
    """
    sums = np.zeros((len(labels), len(task.labels)), np.float32)
    for row, label in enumerate(labels):
        try:
            sums[row, task.label_index(label)] = 1
        except DataError as error:
            raise DataError(
                f"the teacher's labels are {', '.join(labels)}, and {label!r} is none of "
                f"{', '.join(task.labels)}; expected the student's, or diagnoses of its task "
                f"{task.name}."
            ) from error
    if not sums.any(axis=0).all():
        raise DataError(
            f"the teacher's labels are {', '.join(labels)}; expected one at least for each of the "
            f"student's, {', '.join(task.labels)}."
        )
    return sums


def ask_teacher(teacher: Engine, pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the teacher's mean probabilities over the four mirror images, float32 [N, C]."""
    views = [pictures[:, ::down, ::right] for down in (1, -1) for right in (1, -1)]
    said = [teacher.predict(np.ascontiguousarray(view)) for view in views]
    return np.asarray(np.mean(said, axis=0), np.float32)


def _read(
    reader: ImageReader, records: list[ImageRecord], teacher: Engine, context: Context
) -> NDArray[np.uint8]:
    size = teacher.spec.preprocessing.image_size
    pictures = np.empty((len(records), size, size, 3), np.uint8)
    for index, picture in decode_many(
        reader,
        records,
        workers=context.threads,
        transform=lambda image: preprocess_image(image, teacher.spec.preprocessing),
        advance=lambda *_: None,
        max_failures=0,
    ):
        if isinstance(picture, ImageError):
            raise DataError(
                f"{records[index].image_id} cannot be read for the teacher ({picture.reason}); "
                "expected the images that the split was made of."
            )
        pictures[index] = picture
    return pictures
